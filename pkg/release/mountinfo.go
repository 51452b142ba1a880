package release

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Mount is one line of /proc/self/mountinfo (proc(5)).
type Mount struct {
	Major, Minor uint32
	Root         string
	Path         string
	Type         string
	Source       string
	ReadOnly     bool // of this mount
	SuperRO      bool // of the file system: an error may have made it so
}

// Under reports whether the mount is at dir or below.
func (m Mount) Under(dir string) bool {
	return m.Path == dir || strings.HasPrefix(m.Path, strings.TrimSuffix(dir, "/")+"/")
}

// ParseMounts reads mountinfo, in the kernel's order: later ones lie on top of earlier ones.
func ParseMounts(text string) ([]Mount, error) {
	var mounts []Mount
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		m, err := parseMount(strings.Fields(line))
		if err != nil {
			return nil, fmt.Errorf("parse mount %q: %w", strings.TrimSpace(line), err)
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

func parseMount(fields []string) (Mount, error) {
	sep := -1
	for i := 6; i < len(fields); i++ {
		if fields[i] == "-" {
			sep = i
			break
		}
	}
	if sep < 0 || len(fields) < sep+4 {
		return Mount{}, errors.New("too few fields")
	}
	major, minor, ok := strings.Cut(fields[2], ":")
	ma, err1 := strconv.ParseUint(major, 10, 32)
	mi, err2 := strconv.ParseUint(minor, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return Mount{}, errors.New("device is not major:minor")
	}
	return Mount{
		Major: uint32(ma), Minor: uint32(mi),
		Root: unescape(fields[3]), Path: unescape(fields[4]),
		Type: fields[sep+1], Source: unescape(fields[sep+2]),
		ReadOnly: hasOption(fields[5], "ro"), SuperRO: hasOption(fields[sep+3], "ro"),
	}, nil
}

func hasOption(options, want string) bool {
	for option := range strings.SplitSeq(options, ",") {
		if option == want {
			return true
		}
	}
	return false
}

// unescape undoes the kernel's octal escapes of space, tab, newline, backslash and hash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
