package guard

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/keepone-ha/keepone/pkg/boottime"
	"github.com/keepone-ha/keepone/pkg/core"
)

// Key authenticates the datagrams between one pair of nodes.
type Key [32]byte

// MaxDatagram fits into one Ethernet frame with any headers in front.
const MaxDatagram = 1400

// A datagram is: magic, version, type, fields, MAC. Integers are big-endian; a string or list has its length in
// one byte. The type stands under the MAC, so a heartbeat never passes for an ack.
const (
	magic         = 0x4b31 // "K1"
	version       = 1
	typeHeartbeat = 1
	typeAck       = 2
	macSize       = 16
	headSize      = 4
	maxName       = 63
	maxInstance   = 100
)

// The reasons why a datagram is dropped.
var (
	ErrMalformed = errors.New("malformed datagram")
	ErrForged    = errors.New("datagram with a wrong MAC")
	ErrTooLong   = errors.New("datagram would be too long")
)

// AppendHeartbeat encodes h for the peer that shares key, or fails with ErrTooLong.
func AppendHeartbeat(buf []byte, h Heartbeat, key *Key) ([]byte, error) {
	e := encoder{buf: buf, from: len(buf)}
	e.head(typeHeartbeat)
	e.text(string(h.Node), maxName)
	e.text(h.Cluster, maxName)
	e.text(string(h.Instance), maxInstance)
	e.uint64(h.Seq)
	e.uint64(uint64(h.Sent))
	e.byte(byte(h.Flags&flagBits) | watchdogCode(h.Watchdog)<<flagWidth)
	e.count(len(h.Services))
	for _, s := range h.Services {
		e.right(s.Right)
		e.byte(byte(s.State))
	}
	return e.sealed(key)
}

// The flags' byte holds the watchdog's timeout too, in seconds: a daemon that knows of no watchdog reads such a heartbeat
// as it always did, and a guard that knows of none says 0, not armed.
const (
	flagWidth = 2
	flagBits  = Flags(1<<flagWidth - 1)
	// MaxWatchdog is the longest timeout that a heartbeat can say.
	MaxWatchdog = (1<<(8-flagWidth) - 1) * time.Second
)

// watchdogCode never says less than the timeout is: what is longer than can be said is not armed.
func watchdogCode(timeout time.Duration) byte {
	if timeout <= 0 || timeout > MaxWatchdog {
		return 0
	}
	return byte((timeout + time.Second - 1) / time.Second)
}

// AppendAck encodes a for the peer that shares key, or fails with ErrTooLong.
func AppendAck(buf []byte, a Ack, key *Key) ([]byte, error) {
	e := encoder{buf: buf, from: len(buf)}
	e.head(typeAck)
	e.text(string(a.Node), maxName)
	e.text(a.Cluster, maxName)
	e.text(string(a.Instance), maxInstance)
	e.uint64(a.Seq)
	e.uint64(uint64(a.Sent))
	e.uint64(a.Term)
	e.uint64(uint64(a.Lease))
	e.uint64(uint64(a.Maintenance))
	e.count(len(a.Grants))
	for _, g := range a.Grants {
		e.right(g)
	}
	return e.sealed(key)
}

// Sender reads who claims to have sent a datagram, to find the key that proves it.
func Sender(datagram []byte) (core.NodeName, error) {
	if len(datagram) < headSize+macSize || len(datagram) > MaxDatagram {
		return "", ErrMalformed
	}
	d := decoder{buf: datagram[headSize : len(datagram)-macSize]}
	node := d.text(maxName)
	if d.bad || node == "" {
		return "", ErrMalformed
	}
	return core.NodeName(node), nil
}

// DecodeHeartbeat checks the MAC, then decodes.
func DecodeHeartbeat(datagram []byte, key *Key) (Heartbeat, error) {
	d, err := openDatagram(datagram, typeHeartbeat, key)
	if err != nil {
		return Heartbeat{}, err
	}
	h := Heartbeat{
		Node: core.NodeName(d.text(maxName)), Cluster: d.text(maxName), Instance: core.Instance(d.text(maxInstance)),
		Seq: d.uint64(), Sent: boottime.Time(d.nanos()),
	}
	state := d.byte()
	h.Flags, h.Watchdog = Flags(state)&flagBits, time.Duration(state>>flagWidth)*time.Second
	for range d.byte() {
		held := Held{Right: d.right(), State: HeldState(d.byte())}
		d.bad = d.bad || held.State > HeldStuck
		h.Services = append(h.Services, held)
		if d.bad {
			break
		}
	}
	return h, d.end()
}

// DecodeAck checks the MAC, then decodes.
func DecodeAck(datagram []byte, key *Key) (Ack, error) {
	d, err := openDatagram(datagram, typeAck, key)
	if err != nil {
		return Ack{}, err
	}
	a := Ack{
		Node: core.NodeName(d.text(maxName)), Cluster: d.text(maxName), Instance: core.Instance(d.text(maxInstance)),
		Seq: d.uint64(), Sent: boottime.Time(d.nanos()), Term: d.uint64(), Lease: d.nanos(), Maintenance: d.nanos(),
	}
	for range d.byte() {
		a.Grants = append(a.Grants, d.right())
		if d.bad {
			break
		}
	}
	return a, d.end()
}

func openDatagram(datagram []byte, kind byte, key *Key) (*decoder, error) {
	if len(datagram) < headSize+macSize || len(datagram) > MaxDatagram {
		return nil, ErrMalformed
	}
	if binary.BigEndian.Uint16(datagram) != magic || datagram[2] != version || datagram[3] != kind {
		return nil, ErrMalformed
	}
	body, mac := datagram[:len(datagram)-macSize], datagram[len(datagram)-macSize:]
	if !hmac.Equal(sign(body, key), mac) {
		return nil, ErrForged
	}
	return &decoder{buf: body[headSize:]}, nil
}

func sign(body []byte, key *Key) []byte {
	m := hmac.New(sha256.New, key[:])
	m.Write(body)
	return m.Sum(nil)[:macSize]
}

type encoder struct {
	buf  []byte
	from int
	bad  bool
}

func (e *encoder) head(kind byte) {
	e.buf = binary.BigEndian.AppendUint16(e.buf, magic)
	e.buf = append(e.buf, version, kind)
}

func (e *encoder) byte(b byte)     { e.buf = append(e.buf, b) }
func (e *encoder) uint64(v uint64) { e.buf = binary.BigEndian.AppendUint64(e.buf, v) }

func (e *encoder) count(n int) {
	e.bad = e.bad || n > math.MaxUint8
	e.byte(byte(n))
}

func (e *encoder) text(s string, limit int) {
	if len(s) > limit {
		e.bad = true
		return
	}
	e.byte(byte(len(s)))
	e.buf = append(e.buf, s...)
}

func (e *encoder) right(r Right) {
	e.text(string(r.Service), maxName)
	e.uint64(uint64(r.Epoch))
}

func (e *encoder) sealed(key *Key) ([]byte, error) {
	if e.bad || len(e.buf)-e.from+macSize > MaxDatagram {
		return e.buf[:e.from], ErrTooLong
	}
	return append(e.buf, sign(e.buf[e.from:], key)...), nil
}

type decoder struct {
	buf []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.buf) < n {
		d.bad = true
		return make([]byte, n)
	}
	taken := d.buf[:n]
	d.buf = d.buf[n:]
	return taken
}

func (d *decoder) byte() byte     { return d.take(1)[0] }
func (d *decoder) uint64() uint64 { return binary.BigEndian.Uint64(d.take(8)) }

// nanos refuses what no clock or duration of ours can be, so that sums with it never overflow.
func (d *decoder) nanos() time.Duration {
	v := d.uint64()
	d.bad = d.bad || v > math.MaxInt64/4
	return time.Duration(v)
}

func (d *decoder) text(limit int) string {
	n := int(d.byte())
	if n > limit {
		d.bad = true
		return ""
	}
	return string(d.take(n))
}

func (d *decoder) right() Right {
	return Right{Service: core.ServiceName(d.text(maxName)), Epoch: core.Epoch(d.uint64())}
}

func (d *decoder) end() error {
	if d.bad || len(d.buf) != 0 {
		return fmt.Errorf("decode: %w", ErrMalformed)
	}
	return nil
}
