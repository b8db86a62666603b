//go:build ignore

// This program writes word_names.go from the constants of golang.org/x/sys/unix,
// which are those of the kernel's own headers.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// sets are the constants that each set of words is made of, and those among them
// that are aliases of others, bounds, or of another meaning.
var sets = []struct{ name, constants, without string }{
	{"family", `AF_\w+`, `AF_(FILE|LOCAL|ROUTE|MAX)`},
	{"type", `SOCK_(STREAM|DGRAM|RAW|RDM|SEQPACKET|DCCP|PACKET)`, ``},
	{"protocol", `IPPROTO_\w+`, `IPPROTO_(HOPOPTS|DSTOPTS|FRAGMENT|ICMPV6X|MH|NONE|ROUTING|MTP|MAX)|IPPROTO_(BEETPH|ENCAP)X`},
	{"netlink", `NETLINK_(ROUTE|USERSOCK|FIREWALL|SOCK_DIAG|NFLOG|XFRM|SELINUX|ISCSI|AUDIT|FIB_LOOKUP|CONNECTOR|NETFILTER|IP6_FW|DNRTMSG|KOBJECT_UEVENT|GENERIC|SCSITRANSPORT|ECRYPTFS|RDMA|CRYPTO|SMC)`, ``},
	{"ethernet", `ETH_P_\w+`, `ETH_P_802_EX1`},
	{"level", `SOL_\w+`, `SOL_IPV6X`},
	{"socket option", `SO_\w+`, `SO_(GET_FILTER|DEBUGX|EE_\w+|ORIGINAL_DST|VM_\w+|TIMESTAMP_OLD|TIMESTAMPNS_OLD|TIMESTAMPING_OLD|RCVTIMEO_OLD|SNDTIMEO_OLD|DETACH_BPF|DEVMEM_\w+_|EE)`},
	{"ip option", `IP_\w+`, `IP_(DF|MF|OFFMASK|RF|MAXPACKET|MAX_MEMBERSHIPS|MAX_SF|MSS|DEFAULT_\w+|PMTUDISC_\w+|PMTUDISC|ORIGDSTADDR|USER_FLOW|RECVRETOPTS)`},
	{"ipv6 option", `IPV6_\w+`, `IPV6_(FLOWLABEL_\w+|PMTUDISC_\w+|PREFER_SRC_\w+|RTHDR_\w+|TLV_\w+|PRIORITY_\w+|USER_FLOW_\w+|MAX\w+|MIN\w+|JOIN_GROUP|LEAVE_GROUP|FLOW|ORIGDSTADDR|RXDSTOPTS|RXHOPOPTS)`},
	{"tcp option", `TCP_\w+`, `TCP_(ACCECN_\w+|CM_INQ|REPAIR_\w*O\w+|BPF_\w+|COOKIE_\w+_|MD5SIG_\w+|MSS_\w+|S_DATA_\w+|V\w+|WRITE_QUEUE_\w+|MAX\w*|AO_MAX\w*|AO_KEYF_\w+|CLOSE|CLOSE_WAIT|CLOSING|ESTABLISHED|FIN_WAIT\d|LAST_ACK|LISTEN|SYN_\w+|TIME_WAIT|NEW_SYN_RECV|\w+_QUEUE|COOKIE_\w+)`},
	{"udp option", `UDP_\w+`, `UDP_(ENCAP_\w+|V4_FLOW|V6_FLOW)`},
	{"packet option", `PACKET_\w+`, `PACKET_(BROADCAST|FANOUT_\w+|FASTROUTE|HOST|KERNEL|LOOPBACK|MULTICAST|MR_\w+|OTHERHOST|OUTGOING|USER)`},
	{"prctl", `PR_\w+`, `PR_(CAP_AMBIENT_\w+|ENDIAN_\w+|FP_EXC_\w+|FP_EMU_\w+|FPEMU_\w+|FP_MODE_\w+|MCE_\w+|MDWE_\w+|MTE_\w+|PAC_AP\w+|PAC_\w+KEY\w*|PPC_DEXCR_\w+|RISCV_\w+_\w+_\w+|SCHED_CORE_\w+|SME_\w+|SPEC_\w+|SVE_\w+|SYS_DISPATCH_\w+|TAGGED_\w+|TASK_PERF_\w+|THP_\w+|TIMING_\w+|TIMER_\w+|TSC_\w+|UNALIGN_\w+|SET_MM_\w+|SET_PTRACER_\w+|SET_VMA_\w+|FUTEX_HASH_\w+|RSEQ_\w+|CFI_\w+|RISCV_V_VSTATE\w+|RISCV_CTX\w+|RISCV_SCOPE\w+|PMLEN\w*|DUMPABLE\w*|SHADOW_STACK_\w+)`},
	{"mount flag", `MS_\w+`, `MS_(ACTIVE|ASYNC|BORN|INVALIDATE|KERNMOUNT|MGC_\w+|NOREMOTELOCK|NOSEC|NOUSER|POSIXACLX|RMT_MASK|SUBMOUNT|SYNC|VERBOSE)`},
	{"umount flag", `(MNT_(FORCE|DETACH|EXPIRE)|UMOUNT_NOFOLLOW)`, ``},
	{"clone flag", `CLONE_\w+`, `CLONE_(ARGS_\w+|NEWTIMEX|CLEAR_SIGHAND|INTO_CGROUP)`},
	{"ptrace", `PTRACE_\w+`, `PTRACE_(EVENT\w*_\w+|PEEKSIGINFO_SHARED|O_\w+|SYSCALL_INFO_\w+|GETREGS\w*|SETREGS\w*|GETFP\w+|SETFP\w+|ARCH_PRCTL|GET_THREAD_AREA|SET_THREAD_AREA|OLDSETOPTIONS|SINGLEBLOCK|SYSEMU\w*|PEEKMTETAGS|POKEMTETAGS)`},
	{"bpf", `BPF_(MAP_(CREATE|LOOKUP_ELEM|UPDATE_ELEM|DELETE_ELEM|GET_NEXT_KEY|GET_NEXT_ID|GET_FD_BY_ID|LOOKUP_AND_DELETE_ELEM|FREEZE|LOOKUP_BATCH|LOOKUP_AND_DELETE_BATCH|UPDATE_BATCH|DELETE_BATCH)|PROG_(LOAD|ATTACH|DETACH|TEST_RUN|GET_NEXT_ID|GET_FD_BY_ID|QUERY|BIND_MAP)|OBJ_(PIN|GET|GET_INFO_BY_FD)|RAW_TRACEPOINT_OPEN|BTF_(LOAD|GET_FD_BY_ID|GET_NEXT_ID)|TASK_FD_QUERY|LINK_(CREATE|UPDATE|GET_FD_BY_ID|GET_NEXT_ID|DETACH)|ENABLE_STATS|ITER_CREATE)`, ``},
	{"keyctl", `KEYCTL_\w+`, `KEYCTL_(CAPS\d_\w+|SUPPORTS_\w+|MOVE_EXCL)`},
	{"fcntl", `F_(DUPFD|DUPFD_CLOEXEC|GETFD|SETFD|GETFL|SETFL|GETLK|SETLK|SETLKW|SETOWN|GETOWN|SETSIG|GETSIG|SETLEASE|GETLEASE|NOTIFY|SETPIPE_SZ|GETPIPE_SZ|ADD_SEALS|GET_SEALS)`, ``},
	{"resource", `RLIMIT_\w+`, ``},
	{"file type", `S_IF(SOCK|LNK|REG|BLK|DIR|CHR|IFO)`, ``},
	{"ioctl", `(SIOC\w+|TUN\w+|TIOC\w+|BLK\w+|FS_IOC_\w+|RTC_\w+|LOOP_\w+|PERF_EVENT_IOC_\w+|FIFREEZE|FITHAW|FITRIM)`,
		`(BLKPG_\w+|SIOCKCM\w+|RTC_BSM_\w+|TUN_F_\w+|LOOP_SET_STATUS_\w+_FLAGS|LO_\w+|SIOCDEVPRIVATE|SIOCPROTOPRIVATE|SIOCINQ|SIOCOUTQ|SIOCGSTAMP_\w+|SIOCGSTAMPNS_\w+|TIOCINQ|TIOCM_\w+|TIOCPKT_\w+|TIOCSER_TEMT|BLKP\w+_|RTC_(AF|IRQF|MAX_FREQ|PF|UF|FEATURE\w*|PARAM_\w+)|LOOP_(CTL_\w+X)|FS_IOC_SETFLAGSX|SIOCRTMSG|TUNATTACHFILTERX|BLK_\w+|BLKTRACE\w*X|LOOP_CONFIGUREX)`},
	{"reboot", `LINUX_REBOOT_CMD_\w+`, ``},
	{"clock", `CLOCK_\w+`, `CLOCK_(DEFAULT|EXT|INT|TXFROMRX|TXINT)`},
	{"signal", `SIG[A-Z0-9]+`, `SIG(POLL|IOT|CLD|UNUSED)`},
	{"scheduler", `SCHED_(NORMAL|FIFO|RR|BATCH|IDLE|DEADLINE)`, ``},
}

var constant = regexp.MustCompile(`(?m)^\s+([A-Z][A-Z0-9a-z_]*)\s+= (?:syscall\.Signal\()?(-?0x[0-9a-f]+|-?\d+)\)?$`)

func main() {
	log.SetFlags(0)
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		log.Fatalf("find golang.org/x/sys/unix: %v", err)
	}
	dir := strings.TrimSpace(string(out))
	amd64 := constants(dir, "zerrors_linux.go", "ztypes_linux.go", "zerrors_linux_amd64.go")
	arm64 := constants(dir, "zerrors_linux.go", "ztypes_linux.go", "zerrors_linux_arm64.go")
	var code bytes.Buffer
	code.WriteString("// Code generated by gen_words.go from golang.org/x/sys/unix; DO NOT EDIT.\n\npackage probe\n\n")
	code.WriteString("// wordOf names a value of a set of constants; empty for one that has no name there.\n")
	code.WriteString("func wordOf(set string, value uint32) string {\n\tswitch set {\n")
	for _, s := range sets {
		is, not := regexp.MustCompile(`^(`+s.constants+`)$`), regexp.MustCompile(`^(`+s.without+`)$`)
		names := map[uint32]string{}
		for _, name := range sorted(amd64) {
			if !is.MatchString(name) || not.MatchString(name) {
				continue
			}
			value := amd64[name]
			if other, ok := arm64[name]; !ok || other != value {
				continue // of one architecture only
			}
			if old, ok := names[value]; ok {
				log.Printf("%s: %s and %s are both %#x", s.name, old, name, value)
				defer os.Exit(1)
			}
			names[value] = name
		}
		fmt.Fprintf(&code, "\tcase %q:\n\t\tswitch value {\n", s.name)
		values := make([]uint32, 0, len(names))
		for v := range names {
			values = append(values, v)
		}
		slices.Sort(values)
		for _, v := range values {
			fmt.Fprintf(&code, "\t\tcase %#x:\n\t\t\treturn %q\n", v, names[v])
		}
		code.WriteString("\t\t}\n")
	}
	code.WriteString("\t}\n\treturn \"\"\n}\n")
	formatted, err := format.Source(code.Bytes())
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("word_names.go", formatted, 0o644); err != nil {
		log.Fatal(err)
	}
}

// constants reads those that are plain 32-bit numbers.
func constants(dir string, files ...string) map[string]uint32 {
	all := map[string]uint32{}
	for _, file := range files {
		source, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			log.Fatal(err)
		}
		for _, m := range constant.FindAllSubmatch(source, -1) {
			if n, err := strconv.ParseInt(string(m[2]), 0, 64); err == nil && n >= 0 && n < 1<<32 {
				all[string(m[1])] = uint32(n)
			}
		}
	}
	return all
}

func sorted(m map[string]uint32) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
