package ipmi

import (
	"net"
	"testing"
)

// packets is a socket that hands out what it is given.
type packets struct {
	net.Conn
	queue [][]byte
}

func (p *packets) Read(b []byte) (int, error) {
	if len(p.queue) == 0 {
		return 0, net.ErrClosed
	}
	n := copy(b, p.queue[0])
	p.queue = p.queue[1:]
	return n, nil
}

// A secured session takes no plain message: anybody who forges the BMC's address could say off.
func TestSecuredSessionTakesSealedMessagesOnly(t *testing.T) {
	plain := append([]byte{6, 0, 0xff, 7, 0x06, 0x00}, make([]byte, 40)...)
	old := append([]byte{6, 0, 0xff, 7, 0x00, 0xC0}, make([]byte, 40)...)
	sealed := append([]byte{6, 0, 0xff, 7, 0x06, 0xC0}, make([]byte, 40)...)
	buffer := make([]byte, 64)

	c := &conn{Conn: &packets{queue: [][]byte{plain, old, {1, 2}, sealed}}}
	c.secured.Store(true)
	n, err := c.Read(buffer)
	if err != nil || n != len(sealed) || buffer[4] != 6 || buffer[5] != 0xC0 {
		t.Errorf("read % x, %v", buffer[:n], err)
	}
	c = &conn{Conn: &packets{queue: [][]byte{plain}}}
	if n, err := c.Read(buffer); err != nil || n != len(plain) {
		t.Errorf("before login: %d, %v", n, err)
	}
}
