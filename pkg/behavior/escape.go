package behavior

import (
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrEscape is returned for text that Escape could not have made.
var ErrEscape = errors.New("malformed escape")

// Escape turns bytes that a pod controls into text that is safe to print, store
// and compare: printable characters stand for themselves, a backslash is
// doubled, and every other byte is \xNN (in lower case). Characters that change
// how their neighbours are shown (controls, bidirectional marks, zero widths,
// any space but the plain one) are not printable in this sense. The mapping is
// one to one: Unescape gives the bytes back.
func Escape(raw string) string {
	if IsEscaped(raw) && !strings.Contains(raw, `\`) {
		return raw
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	for i := 0; i < len(raw); {
		r, n := utf8.DecodeRuneInString(raw[i:])
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r != utf8.RuneError && unicode.IsPrint(r):
			b.WriteString(raw[i : i+n])
		default:
			for _, c := range []byte(raw[i : i+n]) {
				b.WriteString(`\x`)
				b.WriteByte(hex[c>>4])
				b.WriteByte(hex[c&15])
			}
		}
		i += n
	}
	return b.String()
}

// Unescape gives back the bytes that Escape was given, or ErrEscape.
func Unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		switch {
		case s[i] != '\\':
			b.WriteByte(s[i])
			i++
		case strings.HasPrefix(s[i:], `\\`):
			b.WriteByte('\\')
			i += 2
		case strings.HasPrefix(s[i:], `\x`) && len(s) >= i+4:
			n, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
			if err != nil {
				return "", ErrEscape
			}
			b.WriteByte(byte(n))
			i += 4
		default:
			return "", ErrEscape
		}
	}
	return b.String(), nil
}

// IsEscaped tells whether s is text that Escape could have made, up to the
// choice of what it escapes: printable, every backslash part of an escape.
func IsEscaped(s string) bool {
	plain := 0
	for plain < len(s) && ' ' <= s[plain] && s[plain] <= '~' && s[plain] != '\\' {
		plain++
	}
	for i := plain; i < len(s); {
		if s[i] == '\\' {
			switch {
			case strings.HasPrefix(s[i:], `\\`):
				i += 2
			case strings.HasPrefix(s[i:], `\x`) && len(s) >= i+4 && isHex(s[i+2]) && isHex(s[i+3]):
				i += 4
			default:
				return false
			}
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
		i += n
	}
	return true
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }
