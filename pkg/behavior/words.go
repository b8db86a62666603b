package behavior

import (
	"fmt"
	"strings"
)

// String says the fact in words, for people.
func (f Fact) String() string {
	exe := f.Exe
	if exe == "" {
		exe = "(runtime)"
	}
	if f.Anonymous() {
		exe = "a program"
	}
	text := f.words(exe)
	switch f.Origin {
	case OriginProbe:
		text += " (a probe or hook)"
	case OriginExec:
		text += " (entered from outside)"
	}
	return text
}

func (f Fact) words(exe string) string {
	switch f.Kind {
	case Process:
		return f.processWords()
	case File:
		if f.Operation != "" {
			return fmt.Sprintf("%s %s %s%s", exe, f.Operation.verb(f.Access), f.Path, f.deletedWords())
		}
		var verbs []string
		for _, v := range []struct {
			bit  Access
			word string
		}{{Read, "reads"}, {Write, "writes"}, {Create, "creates"}} {
			if f.Access.Has(v.bit) {
				verbs = append(verbs, v.word)
			}
		}
		return fmt.Sprintf("%s %s %s%s", exe, strings.Join(verbs, " and "), f.Path, f.deletedWords())
	case Network:
		return f.networkWords(exe)
	case DNS:
		if f.Target != "" {
			return fmt.Sprintf("%s asks for %s (%s), which leads to %s", exe, f.Name, f.Type, f.Target)
		}
		return fmt.Sprintf("%s asks for %s (%s)", exe, f.Name, f.Type)
	case Socket:
		text := fmt.Sprintf("%s makes a socket: %s %s", exe, f.Family, f.Type)
		if f.Protocol != "" {
			text += " " + f.Protocol
		}
		return text
	case Capability:
		verb := "uses"
		if f.Refused {
			verb = "is refused"
		}
		call := f.Syscall
		if f.Arguments != "" {
			call += "(" + f.Arguments + ")"
		}
		return fmt.Sprintf("%s %s capability %s in %s", exe, verb, f.Name, call)
	case Syscall:
		return fmt.Sprintf("calls %s (%s)", f.Name, f.Arch)
	case HTTP:
		if f.Direction == Ingress {
			return fmt.Sprintf("%s is asked for %s %s%s on port %d by %s", exe, f.Name, f.Target, f.Path, f.Port, f.Peer)
		}
		return fmt.Sprintf("%s asks %s for %s %s%s on port %d", exe, f.Peer, f.Name, f.Target, f.Path, f.Port)
	case Kafka:
		if f.Direction == Ingress {
			return fmt.Sprintf("%s is asked to %s %s on port %d by %s", exe, f.Type, f.Name, f.Port, f.Peer)
		}
		return fmt.Sprintf("%s asks %s to %s %s on port %d", exe, f.Peer, f.Type, f.Name, f.Port)
	}
	return string(f.Kind)
}

func (f Fact) processWords() string {
	parent := f.Parent
	if parent == "" {
		parent = "(outside the container)"
	}
	text := fmt.Sprintf("%s runs %s%s", parent, f.Path, f.deletedWords())
	if f.Interpreter != "" {
		text += " with " + f.Interpreter
	}
	if f.Arguments != "" {
		text += ": " + f.Arguments
	}
	return text
}

func (f Fact) networkWords(exe string) string {
	via := ""
	if f.Peer.Service != "" {
		via = " (service " + f.Peer.Service + ")"
	} else if f.Via.IsValid() {
		via = " (asked for " + f.Via.String() + ")"
	}
	switch f.Direction {
	case Listen:
		return fmt.Sprintf("%s listens on %s/%d", exe, f.Protocol, f.Port)
	case Ingress:
		return fmt.Sprintf("%s is reached on %s/%d by %s", exe, f.Protocol, f.Port, f.Peer)
	}
	return fmt.Sprintf("%s connects to %s on %s/%d%s", exe, f.Peer, f.Protocol, f.Port, via)
}

func (f Fact) deletedWords() string {
	if f.Deleted {
		return " (deleted)"
	}
	return ""
}

// verb says the operation in the third person; what it does to the path differs
// with the access for those that take two.
func (o Operation) verb(a Access) string {
	switch o {
	case OpRename:
		if a.Has(Create) {
			return "renames something to"
		}
		return "renames"
	case OpLink:
		if a.Has(Create) {
			return "makes the hard link"
		}
		return "gives another name to"
	case OpSymlink:
		return "makes the symbolic link"
	case OpUnlink:
		return "removes"
	case OpMkdir:
		return "makes the directory"
	case OpRmdir:
		return "removes the directory"
	case OpMknod:
		return "makes the special file"
	case OpTruncate:
		return "truncates"
	case OpChmod:
		return "changes the mode of"
	case OpChown:
		return "changes the owner of"
	case OpXattr:
		return "changes attributes of"
	case OpExecMap:
		return "maps as code"
	case OpConnect:
		return "connects to the socket"
	case OpBind:
		return "makes the socket"
	}
	return string(o)
}
