package policy

import "strings"

// Class is a kind of values of which any may stand in one part of a path. It is
// written in braces, and never reaches across a slash.
type Class string

// Classes, by how they are written in a Template.
const (
	UUID   Class = "{uuid}"
	Date   Class = "{date}"   // 2026-11-22
	Number Class = "{number}" // digits
	Hex    Class = "{hex}"    // eight or more hexadecimal digits
)

// Classes lists every class, the narrowest first.
func Classes() []Class { return []Class{UUID, Date, Number, Hex} }

// ClassOf tells of what class a part of a path looks to be. What could be a name
// is of none: hexadecimal digits without a decimal and a letter among them, too.
func ClassOf(part string) (Class, bool) {
	for _, c := range Classes() {
		if c.Matches(part) && (c != Hex || strings.ContainsAny(part, "0123456789") && strings.ContainsAny(part, "abcdefABCDEF")) {
			return c, true
		}
	}
	return "", false
}

// Matches tells whether the part is a value of the class.
func (c Class) Matches(part string) bool {
	switch c {
	case UUID:
		return shaped(part, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
	case Date:
		return shaped(part, "dddd-dd-dd")
	case Number:
		return part != "" && shaped(part, strings.Repeat("d", len(part)))
	case Hex:
		return len(part) >= 8 && shaped(part, strings.Repeat("x", len(part)))
	}
	return false
}

// Expression is the class as a POSIX extended regular expression.
func (c Class) Expression() string {
	switch c {
	case UUID:
		return "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
	case Date:
		return "[0-9]{4}-[0-9]{2}-[0-9]{2}"
	case Number:
		return "[0-9]+"
	case Hex:
		return "[0-9a-fA-F]{8,}"
	}
	return ""
}

// shaped tells whether text has the shape: d stands for a digit, x for a
// hexadecimal one, anything else for itself.
func shaped(text, shape string) bool {
	if len(text) != len(shape) {
		return false
	}
	for i := range len(text) {
		c := text[i]
		digit := '0' <= c && c <= '9'
		switch shape[i] {
		case 'd':
			if !digit {
				return false
			}
		case 'x':
			if !digit && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
				return false
			}
		default:
			if c != shape[i] {
				return false
			}
		}
	}
	return true
}
