package learn

import (
	"strings"
	"time"
)

// certainty says how sure it is, of a name alone, that it will be another one the
// next time.
type certainty int

const (
	given    certainty = iota // somebody chose it: only very many of them show variation
	numbered                  // it holds a number, or letters and digits mixed
	random                    // a UUID, a long hexadecimal number, a temporary name
	renewed                   // it is a process, a day, a moment or a pod
)

// clock is what a container's evidence says of when and where it ran: names that
// say the same will be others tomorrow and in the next pod. It only widens with
// more evidence.
type clock struct {
	first, last time.Time // with a day on both sides; zero where no time is known
	pods        []string
	stem        string // what all pods' names begin with
}

// day is how far a name's time may be off what the collector's clock says: time
// zones, and files of the day before.
const day = 24 * time.Hour

// kindOf replaces what looks generated in a name by # and *, and tells how sure
// that is. Names of one kind have the same result. A given name's kind is what it
// ends in.
func (c *clock) kindOf(name string) (string, certainty) {
	if strings.ContainsAny(name, `*\`) {
		return name, given // escaped bytes are nobody's counter
	}
	if c.ofPod(name) {
		return "a pod's name", renewed
	}
	kind, sure := c.shape(name)
	if sure == given {
		return "*" + name[extension(name):], given
	}
	return kind, sure
}

// extension is where what a name ends in begins; its length if there is none.
func extension(name string) int {
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		return i
	}
	return len(name)
}

// shape goes over a name word by word.
func (c *clock) shape(name string) (string, certainty) {
	if sure := c.moment(name); sure {
		return "a time", renewed
	}
	if prefix, ok := temporary(name); ok {
		end := name[extension(name):]
		if len(end) > 5 || changes(end) > 1 {
			end = "" // it is what was drawn
		}
		return prefix + "*" + end, random
	}
	var shape strings.Builder
	sure := given
	for rest := name; rest != ""; {
		if isUUID(rest) {
			shape.WriteByte('*')
			rest, sure = rest[uuidLen:], random
			continue
		}
		n := 0
		for n < len(rest) && alphanumeric(rest[n]) {
			n++
		}
		if n == 0 {
			shape.WriteByte(rest[0])
			rest = rest[1:]
			continue
		}
		word, w := wordShape(rest[:n])
		shape.WriteString(word)
		rest, sure = rest[n:], max(sure, w)
	}
	return shape.String(), sure
}

// temporary tells whether a name is one that mktemp and its like make.
func temporary(name string) (prefix string, ok bool) {
	if rest, ok := strings.CutPrefix(strings.TrimPrefix(name, "."), "tmp"); ok && len(rest) >= 4 {
		return "tmp", true
	}
	i := strings.LastIndexAny(name, ".-_")
	if i < 0 {
		return "", false
	}
	if word := name[i+1:]; len(word) == 6 && changes(word) >= 3 {
		return name[:i+1], true
	}
	return "", false
}

// changes counts how often a word goes from small to capital letters, from letters
// to digits and back: the six characters of mkstemp do it more than twice, words
// that people write do not.
func changes(word string) int {
	class := func(c byte) int {
		switch {
		case '0' <= c && c <= '9':
			return 1
		case 'a' <= c && c <= 'z':
			return 2
		case 'A' <= c && c <= 'Z':
			return 3
		}
		return 0
	}
	n := 0
	for i := 1; i < len(word); i++ {
		if class(word[i]) != class(word[i-1]) {
			n++
		}
	}
	return n
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

const (
	digits  = "0123456789"
	hex     = digits + "abcdefABCDEF"
	uuidLen = len("00000000-0000-0000-0000-000000000000")
)

// isUUID tells whether s begins with a UUID.
func isUUID(s string) bool {
	if len(s) < uuidLen {
		return false
	}
	for i := range uuidLen {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (s[i] == '-') || !dash && strings.IndexByte(hex, s[i]) < 0 {
			return false
		}
	}
	return true
}

// wordShape is the shape of letters and digits without anything between.
func wordShape(word string) (string, certainty) {
	numbers := 0
	for i := range len(word) {
		if word[i] <= '9' {
			numbers++
		}
	}
	switch {
	case numbers == len(word):
		return "#", numbered
	case numbers == 0:
		return word, given
	case len(word) >= 16 && strings.Trim(word, hex) == "", len(word) >= 20 && changes(word) >= 5:
		return "*", random
	case len(word) >= 8 && strings.Trim(word, hex) == "":
		return "*", numbered
	}
	if rest, ok := strings.CutPrefix(word, "temp"); ok && len(rest) >= 4 {
		return "temp*", numbered
	}
	letters := strings.TrimRight(word, digits)
	if len(word)-len(letters) == numbers {
		return letters + "#", numbered
	}
	if len(word) >= 6 {
		return "*", numbered
	}
	return word, given
}

// ofPod tells whether the name of an observed pod is a part of the name.
func (c *clock) ofPod(name string) bool {
	if len(c.pods) == 0 || len(name) < len(c.stem) || !strings.Contains(name, c.stem) {
		return false
	}
	for _, pod := range c.pods {
		i := strings.Index(name, pod)
		if i < 0 || len(pod) < 3 {
			continue
		}
		if end := i + len(pod); (i == 0 || !alphanumeric(name[i-1])) && (end == len(name) || !alphanumeric(name[end])) {
			return true
		}
	}
	return false
}

// moment tells whether a name holds a day, or a number of seconds or milliseconds
// since 1970, of when the container was observed.
func (c *clock) moment(name string) bool {
	if c.last.IsZero() || len(name) < 8 {
		return false
	}
	for i := 0; i < len(name); {
		if name[i] < '0' || name[i] > '9' {
			i++
			continue
		}
		n := i
		for n < len(name) && '0' <= name[n] && name[n] <= '9' {
			n++
		}
		switch run := name[i:n]; {
		case n-i == 4 && len(name) >= i+10 && !alphanumeric(name[n]) && name[n] == name[i+7] && c.on(run+name[i+5:i+7]+name[i+8:i+10]),
			n-i >= 8 && n-i <= 14 && n-i != 10 && c.on(run[:8]),
			n-i == 10 && (c.at(run) || c.on(run[:8])), n-i == 13 && c.at(run[:10]):
			return true
		}
		i = n
	}
	return false
}

// on tells whether a day, written YYYYMMDD, is one of those observed.
func (c *clock) on(text string) bool {
	t, err := time.Parse("20060102", text)
	return err == nil && !t.Before(c.first) && !t.After(c.last)
}

// at tells whether a number of seconds since 1970 is in what was observed.
func (c *clock) at(text string) bool {
	var seconds int64
	for i := range len(text) {
		seconds = 10*seconds + int64(text[i]-'0')
	}
	return seconds >= c.first.Unix() && seconds <= c.last.Unix()
}

// isVolume tells whether a folder is one into which the kubelet writes one
// version of a mounted secret, config map or token, such as
// ..2026_11_22_08_29_01.4013239584.
func isVolume(name string) bool {
	stamp, ok := strings.CutPrefix(name, "..")
	if !ok {
		return false
	}
	when, serial, ok := strings.Cut(stamp, ".")
	parts := strings.Split(when, "_")
	if !ok || !number(serial) || len(parts) != 6 || len(parts[0]) != 4 {
		return false
	}
	for i, part := range parts {
		if !number(part) || i > 0 && len(part) != 2 {
			return false
		}
	}
	return true
}

// isProcess tells whether a name is the number of a process or thread in a folder,
// which is given by its parts. Process 1 is the container's first program in every
// start.
func isProcess(parts []string, name string) bool {
	at := len(parts)
	if at == 0 || !number(name) {
		return false
	}
	switch {
	case at == 1 && parts[0] == "proc":
		return name != "1"
	case at == 3 && parts[0] == "proc":
		return parts[2] == "task" && (number(parts[1]) || parts[1] == "*")
	}
	return strings.HasPrefix(parts[at-1], "hsperfdata_") // the Java machine's
}

func number(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
