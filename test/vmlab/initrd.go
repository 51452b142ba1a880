package vmlab

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// early are the modules that a guest needs before its own file system is there.
var early = []string{"virtio_pci", "virtio_blk", "virtio_net", "crc32c_generic", "ext4", "bridge"}

// boot takes kernel and modules from the root file system and makes the initrd.
func (b *builder) boot(ctx context.Context, root string, im image) error {
	kernels, _ := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if len(kernels) != 1 {
		return fmt.Errorf("find kernel: %d in the image, not one", len(kernels))
	}
	release := strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	if _, err := b.run(ctx, "cp", kernels[0], im.Kernel); err != nil {
		return err
	}
	modules := filepath.Join(root, "lib/modules", release)
	deps, err := os.ReadFile(filepath.Join(modules, "modules.dep"))
	if err != nil {
		return fmt.Errorf("read module dependencies: %w", err)
	}
	files, err := closure(string(deps), early)
	if err != nil {
		return err
	}
	return writeInitrd(im.Initrd, root, modules, files)
}

// closure lists the files of the modules and of all that they need, each after what it needs (modules.dep(5)).
func closure(deps string, names []string) ([]string, error) {
	needs := map[string][]string{}
	path := map[string]string{}
	for line := range strings.Lines(deps) {
		file, rest, _ := strings.Cut(line, ":")
		needs[file] = strings.Fields(rest)
		path[strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")] = file
	}
	var ordered []string
	add := func(file string) {
		if !slices.Contains(ordered, file) {
			ordered = append(ordered, file)
		}
	}
	for _, name := range names {
		file, known := path[name]
		if !known {
			return nil, fmt.Errorf("find module %s: the kernel has none", name)
		}
		for _, need := range slices.Backward(needs[file]) { // what is needed last is named first
			add(need)
		}
		add(file)
	}
	return ordered, nil
}

func writeInitrd(path, root, modules string, files []string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make initrd: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	packed, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return fmt.Errorf("make initrd: %w", err)
	}
	buffered := bufio.NewWriter(packed)
	c := &cpio{w: buffered}
	for _, dir := range []string{"bin", "modules", "proc", "sys", "dev", "new"} {
		c.entry(dir, 0o40755, nil)
	}
	c.entry("init", 0o100755, []byte(guestFile("init")))
	c.copy("bin/busybox", filepath.Join(root, "bin/busybox"))
	for i, file := range files {
		c.copy(fmt.Sprintf("modules/%02d-%s", i, filepath.Base(file)), filepath.Join(modules, file))
	}
	c.entry("TRAILER!!!", 0, nil)
	if err := errors.Join(c.err, buffered.Flush(), packed.Close()); err != nil {
		return fmt.Errorf("make initrd: %w", err)
	}
	return nil
}

// cpio writes the kernel's archive format, newc (initramfs buffer format); it keeps the first error.
type cpio struct {
	w    io.Writer
	next int
	err  error
}

func (c *cpio) copy(name, from string) {
	text, err := os.ReadFile(from)
	if err != nil && c.err == nil {
		c.err = err
	}
	c.entry(name, 0o100755, text)
}

func (c *cpio) entry(name string, mode int, text []byte) {
	c.next++
	header := "070701"
	for _, field := range []int{c.next, mode, 0, 0, 1, 0, len(text), 0, 0, 0, 0, len(name) + 1, 0} {
		header += fmt.Sprintf("%08X", field)
	}
	head := header + name + "\x00"
	c.write([]byte(head + strings.Repeat("\x00", (4-len(head)%4)%4)))
	c.write(text)
	c.write(make([]byte, (4-len(text)%4)%4))
}

func (c *cpio) write(p []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(p)
	}
}
