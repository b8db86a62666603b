package probe

import (
	"math/bits"
	"strconv"
	"strings"
)

//go:generate go run gen_words.go

// callWord is an argument of a system call that is told in words, as what may be done
// with a capability depends on it. A pointer is never one.
type callWord struct {
	argument int    // counted from 0
	mask     uint32 // what counts of it
	// say names the value; before are those of the words before it.
	say func(value uint32, before []uint32) string
}

const maxWords = 3 // as in the kernel side's key

// callWords are the words of a system call; none where no argument matters.
func callWords(call string) []callWord {
	all := ^uint32(0)
	switch call {
	case "socket", "socketpair":
		return []callWord{{0, all, one("family")}, {1, 0xf, one("type")}, {2, all, protocolWord}} // SOCK_TYPE_MASK
	case "setsockopt", "getsockopt":
		return []callWord{{1, all, one("level")}, {2, all, optionWord}}
	case "ioctl":
		return []callWord{{1, all, one("ioctl")}}
	case "prctl":
		return []callWord{{0, all, one("prctl")}}
	case "mount":
		return []callWord{{3, all, flags("mount flag")}}
	case "umount2":
		return []callWord{{1, all, flags("umount flag")}}
	case "unshare":
		return []callWord{{0, all, flags("clone flag")}}
	case "clone":
		return []callWord{{0, ^uint32(0xff), flags("clone flag")}} // without the signal
	case "setns":
		return []callWord{{1, all, flags("clone flag")}}
	case "ptrace":
		return []callWord{{0, all, one("ptrace")}}
	case "bpf":
		return []callWord{{0, all, one("bpf")}}
	case "keyctl":
		return []callWord{{0, all, one("keyctl")}}
	case "fcntl", "fcntl64":
		return []callWord{{1, all, one("fcntl")}}
	case "setrlimit":
		return []callWord{{0, all, one("resource")}}
	case "prlimit64":
		return []callWord{{1, all, one("resource")}}
	case "kill", "tkill", "rt_sigqueueinfo", "pidfd_send_signal":
		return []callWord{{1, all, one("signal")}}
	case "tgkill", "rt_tgsigqueueinfo":
		return []callWord{{2, all, one("signal")}}
	case "mknod":
		return []callWord{{1, 0o170000, one("file type")}}
	case "mknodat":
		return []callWord{{2, 0o170000, one("file type")}}
	case "reboot":
		return []callWord{{2, all, one("reboot")}}
	case "clock_settime", "clock_adjtime", "timerfd_create", "timer_create":
		return []callWord{{0, all, one("clock")}}
	case "sched_setscheduler":
		return []callWord{{1, 0xff, one("scheduler")}} // without SCHED_RESET_ON_FORK
	}
	return nil
}

// wordedCalls are the system calls that have words.
func wordedCalls() []string {
	return strings.Fields("socket socketpair setsockopt getsockopt ioctl prctl mount umount2 unshare clone setns ptrace bpf keyctl " +
		"fcntl fcntl64 setrlimit prlimit64 kill tkill rt_sigqueueinfo pidfd_send_signal tgkill rt_tgsigqueueinfo mknod mknodat " +
		"reboot clock_settime clock_adjtime timerfd_create timer_create sched_setscheduler")
}

// sayWords says the words of a call: AF_INET, SOCK_RAW, IPPROTO_ICMP. A value
// without a name is a number.
func sayWords(call string, values []uint32) string {
	var said []string
	for i, w := range callWords(call) {
		if i < len(values) {
			said = append(said, w.say(values[i], values[:i]))
		}
	}
	return strings.Join(said, ", ")
}

func number(value uint32) string {
	if value < 1<<16 {
		return strconv.FormatUint(uint64(value), 10)
	}
	return "0x" + strconv.FormatUint(uint64(value), 16)
}

func named(set string, value uint32) string {
	if name := wordOf(set, value); name != "" {
		return name
	}
	return number(value)
}

// one says a value of a set of constants.
func one(set string) func(uint32, []uint32) string {
	return func(value uint32, _ []uint32) string { return named(set, value) }
}

// flags says the bits of a set of constants: MS_REC|MS_PRIVATE.
func flags(set string) func(uint32, []uint32) string {
	return func(value uint32, _ []uint32) string {
		var said []string
		var unnamed uint32
		for rest := value; rest != 0; rest &= rest - 1 {
			bit := uint32(1) << bits.TrailingZeros32(rest)
			if name := wordOf(set, bit); name != "" {
				said = append(said, name)
			} else {
				unnamed |= bit
			}
		}
		if unnamed != 0 || len(said) == 0 {
			said = append(said, number(unnamed))
		}
		return strings.Join(said, "|")
	}
}

// Families and levels that decide what a later argument means, from
// linux/socket.h; the test compares them with golang.org/x/sys.
const (
	familyInet, familyInet6, familyNetlink, familyPacket             = 2, 10, 16, 17
	levelIP, levelSocket, levelTCP, levelUDP, levelIPv6, levelPacket = 0, 1, 6, 17, 41, 263
)

func protocolWord(value uint32, before []uint32) string {
	switch before[0] {
	case familyInet, familyInet6:
		return named("protocol", value)
	case familyNetlink:
		return named("netlink", value)
	case familyPacket:
		return named("ethernet", uint32(bits.ReverseBytes16(uint16(value)))) // network byte order
	}
	return number(value)
}

func optionWord(value uint32, before []uint32) string {
	switch before[0] {
	case levelIP:
		return named("ip option", value)
	case levelSocket:
		return named("socket option", value)
	case levelTCP:
		return named("tcp option", value)
	case levelUDP:
		return named("udp option", value)
	case levelIPv6:
		return named("ipv6 option", value)
	case levelPacket:
		return named("packet option", value)
	}
	return number(value)
}
