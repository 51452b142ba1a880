package main

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keepone-ha/keepone/pkg/core"
	"github.com/keepone-ha/keepone/pkg/op"
)

func (c *cli) volumeCommand() *cobra.Command {
	return group("volume", "Make the volume of a service, or claim it", c.volumeCreateCommand(), c.volumeClaimCommand())
}

func (c *cli) volumeCreateCommand() *cobra.Command {
	var size, from string
	cmd := &cobra.Command{
		Use: "create SERVICE", Short: "Make image, file system and container directory of a service", Args: cobra.ExactArgs(1),
		Long: "The service must be in the cluster document. An image that is there already is refused.",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		bytes, err := parseSize(size)
		if err != nil {
			return usage(cmd, err)
		}
		if from == "" {
			return usage(cmd, errors.New("--from is missing: a tarball or directory with config and rootfs"))
		}
		from, err := filepath.Abs(from)
		if err != nil {
			return fmt.Errorf("find %s: %w", from, err)
		}
		request := op.Volume{Service: core.ServiceName(args[0]), Size: bytes, From: from}
		if err := c.change(cmd.Context(), op.MethodVolume, request, nil); err != nil {
			return err
		}
		c.printf("Done: the volume of %s is made. If the service is not stopped, it starts by itself.\n", args[0])
		return nil
	}
	cmd.Flags().StringVar(&size, "size", "", "`size` of the image, such as 20G")
	cmd.Flags().StringVar(&from, "from", "", "tarball or `directory` with config and rootfs, on this node")
	return cmd
}

func (c *cli) volumeClaimCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "claim SERVICE", Short: "Cut off strangers that hold a service's image", Args: cobra.ExactArgs(1),
		Long: "A stranger is a storage client that this cluster never made: somebody's rbd map, a backup, another cluster.",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.confirm(fmt.Sprintf("Every stranger that holds the image of %s is cut off from its Ceph pool for years; "+
			"what it had not yet written is lost.", args[0])); err != nil {
			return err
		}
		if err := c.change(cmd.Context(), op.MethodVolume, op.Volume{Service: core.ServiceName(args[0]), Claim: true}, nil); err != nil {
			return err
		}
		c.printf("Done: the image of %s is free.\n", args[0])
		return nil
	}
	return cmd
}

// parseSize reads 512M, 20G, 1T: powers of 1024, as Ceph has them.
func parseSize(text string) (uint64, error) {
	wrong := fmt.Errorf("%q is no size: a whole number with M, G or T, such as 20G", text)
	number := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text), "B"), "I")
	if number == "" {
		return 0, wrong
	}
	shift, ok := map[byte]uint{'M': 20, 'G': 30, 'T': 40}[number[len(number)-1]]
	if !ok {
		return 0, wrong
	}
	n, err := strconv.ParseUint(number[:len(number)-1], 10, 64)
	if err != nil || n == 0 || n > math.MaxUint64>>shift {
		return 0, wrong
	}
	return n << shift, nil
}
