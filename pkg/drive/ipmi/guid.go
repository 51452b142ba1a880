package ipmi

import "strings"

// SameGUID reports whether a GUID as Identity reads it is the one that an operator wrote down. Tools print
// the same sixteen bytes in three orders (RFC 4122, SMBIOS, IPMI §20.8), so each of them counts as the same.
// Nothing equals an empty, all-zero or malformed GUID.
func SameGUID(read, written string) bool {
	a, b := plainGUID(read), plainGUID(written)
	if a == "" || b == "" {
		return false
	}
	return a == b || smbiosOrder(a) == b || reversed(a) == b
}

// plainGUID returns 32 lower-case digits, or nothing if s is not a GUID that tells a machine apart.
func plainGUID(s string) string {
	s = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), "-", ""))
	if len(s) != 32 || strings.Trim(s, "0123456789abcdef") != "" {
		return ""
	}
	if strings.Trim(s, "0") == "" || strings.Trim(s, "f") == "" {
		return "" // SMBIOS 3.2 §7.2.1: not present, or not set
	}
	return s
}

// smbiosOrder swaps the first three fields, which SMBIOS stores with the least significant byte first.
func smbiosOrder(s string) string {
	return reversed(s[:8]) + reversed(s[8:12]) + reversed(s[12:16]) + s[16:]
}

func reversed(s string) string {
	var out strings.Builder
	for i := len(s); i >= 2; i -= 2 {
		out.WriteString(s[i-2 : i])
	}
	return out.String()
}
