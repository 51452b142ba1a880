package cases

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/keepone-ha/keepone/test/lab"
)

func init() {
	add("ipv6/failover", kind{edit: ipv6Only}, ipv6Failover)
	add("ipv6/address-in-use", kind{edit: ipv6Only}, ipv6InUse)
}

// ipv6Only gives the service an IPv6 address, and a gateway, in the place of its IPv4 one.
func ipv6Only(c *cluster) {
	old := c.address
	c.address = lab.ServiceAddress6(1)
	c.document = strings.Replace(c.document, fmt.Sprintf("[%q]", old+"/24"), fmt.Sprintf("[%q]\ngateway = %q", c.address+"/64", gateway6), 1)
}

var gateway6 = lab.LinkAddress6(254)

// ipv6Failover loses the holder while a client is sure that the address is elsewhere: the new holder's unsolicited
// neighbour advertisement corrects it, the client has to ask nobody.
func ipv6Failover(ctx context.Context, c *cluster) error {
	mac, err := c.Neighbour(c.address)
	if err != nil || mac == nil {
		return errors.Join(fmt.Errorf("%s answered and is no neighbour", c.address), err)
	}
	wrong := net.HardwareAddr{2, 0, 0, 0, 0, 0x99}
	if err := c.expectTakeover(ctx, "bmc-off", func(ctx context.Context, n *lab.Node) error {
		return errors.Join(n.PowerCut(ctx), c.Mislead(c.address, wrong))
	}); err != nil {
		return err
	}
	now, err := c.Neighbour(c.address)
	if err == nil && now.String() != mac.String() {
		err = fmt.Errorf("the client sends to %s, the service is at %s", now, mac)
	}
	holder, _, err2 := c.holder(ctx, c.anyUp())
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	return c.inside(ctx, holder, "/bin/sh", "-c", "ip -6 route | busybox grep -q '^default via "+gateway6+" '")
}

// ipv6InUse has a node that may not hold the service answer for its address: it is not started beside that, says who
// it is, and starts by itself once the address is free.
func ipv6InUse(ctx context.Context, c *cluster) error {
	holder, _, err := c.holder(ctx, c.anyUp())
	if err != nil {
		return err
	}
	other := c.anyUp(holder)
	for _, args := range [][]string{{"drain", other.Name}, {"service", "stop", service}} {
		if _, err := c.keepone(ctx, holder, args...); err != nil {
			return err
		}
	}
	address := c.address + "/64"
	if _, err := other.Exec(ctx, "ip", "addr", "add", address, "dev", "svc0", "nodad"); err != nil {
		return err
	}
	if _, err := c.keepone(ctx, holder, "service", "start", service, "--no-wait"); err != nil {
		return err
	}
	words := []string{c.address + " is in use by", net.HardwareAddr{2, 0, 0, 0, 0, byte(other.Index)}.String()}
	if err := c.awaitSaid(ctx, takeoverBound, holder, []string{"status", "-o", "json"}, words...); err != nil {
		return err
	}
	if s, err := c.status(ctx, holder); err != nil || s.Services[0].State == "running" {
		return errors.Join(errors.New("it runs beside another with its address"), err)
	}
	if _, err := other.Exec(ctx, "ip", "addr", "del", address, "dev", "svc0"); err != nil {
		return err
	}
	return c.awaitRunning(ctx, time.Minute) // it is tried later and later
}
