package learn

import (
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// isShell tells programs that are shells and nothing else, by name.
func isShell(name string) bool {
	return slices.Contains([]string{"sh", "dash", "bash", "rbash", "ash", "ksh", "mksh", "zsh", "fish", "csh", "tcsh", "pwsh"}, name)
}

// isMulti tells programs that are a shell under one of many names. Which one it was
// run by is not in a fact.
func isMulti(name string) bool { return name == "busybox" || name == "toybox" }

// isRawTool tells programs that carry bytes between anything and the network.
func isRawTool(name string) bool {
	return slices.Contains([]string{"nc", "nc.traditional", "nc.openbsd", "ncat", "netcat", "socat", "telnet"}, name)
}

// isTool tells general programs that read files for people and scripts, and are
// not made for what they read.
func isTool(exe string) bool {
	name := base(exe)
	return isShell(name) || isMulti(name) || isRawTool(name) || slices.Contains([]string{
		"cat", "tac", "head", "tail", "wc", "cp", "mv", "ln", "dd", "od", "xxd", "hexdump", "base64", "base32", "strings", "grep", "sed",
		"awk", "gawk", "mawk", "cut", "sort", "tr", "tee", "less", "more", "vi", "vim", "vim.basic", "nano", "tar", "gzip", "zip", "xargs",
		"find", "curl", "wget", "scp", "rsync"}, name)
}

// isMiner tells programs that mine coins by the names under which they are
// published, and the two under which the Kinsing malware puts one down.
func isMiner(name string) bool {
	return slices.Contains([]string{"xmrig", "xmrig-notls", "xmr-stak", "minerd", "cpuminer", "ccminer", "cgminer", "bfgminer", "ethminer",
		"nbminer", "t-rex", "lolminer", "lolMiner", "phoenixminer", "PhoenixMiner", "teamredminer", "gminer", "SRBMiner-MULTI", "nanominer",
		"kinsing", "kdevtmpfsi"}, name)
}

// isPoolPort tells ports of mining pools: those of the list miner_ports in Falco's
// rules (falcosecurity/rules) that are not usual for anything else.
func isPoolPort(port uint16) bool {
	return slices.Contains([]uint16{3333, 3334, 3335, 3336, 3357, 4444, 5555, 5556, 5588, 5730, 6099, 14433, 14444, 45560, 45700}, port)
}

// isPool tells names of mining pools: the domains of the list miner_domains in
// Falco's rules, and any host called stratum.
func isPool(name string) bool {
	if strings.HasPrefix(name, "stratum.") || strings.HasPrefix(name, "stratum-") {
		return true
	}
	return slices.ContainsFunc([]string{"minexmr.com", "supportxmr.com", "moneropool.com", "crypto-pool.fr", "nanopool.org", "minergate.com",
		"ethermine.org", "ethpool.org", "dwarfpool.com", "f2pool.com", "antpool.com", "slushpool.com", "2miners.com", "nicehash.com",
		"moneroocean.stream", "hashvault.pro", "xmrpool.eu", "xmrpool.net", "c3pool.com", "monerohash.com", "unmineable.com"},
		func(domain string) bool { return name == domain || strings.HasSuffix(name, "."+domain) })
}

// isPackageManager tells programs that install software of the distribution.
// Those that scripts only ask for a version (dpkg, rpm) are not among them.
func isPackageManager(name string) bool {
	return slices.Contains([]string{"apt", "apt-get", "aptitude", "apk", "yum", "dnf", "dnf5", "microdnf", "zypper", "pacman"}, name)
}

// writes tells whether a fact changes what is in a file, or what is under a name.
func writes(f *behavior.Fact) bool {
	if f.Access&(behavior.Write|behavior.Create) == 0 {
		return false
	}
	switch f.Operation {
	case "", behavior.OpRename, behavior.OpLink, behavior.OpSymlink, behavior.OpTruncate, behavior.OpMknod:
		return true
	}
	return false
}

// isCode tells files where programs, and the code that they load, lie. What Python
// compiles of its modules is no new code.
func isCode(path string) bool {
	for _, dir := range []string{"/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/"} {
		if strings.HasPrefix(path, dir) {
			return true
		}
	}
	if strings.Contains(path, "/__pycache__/") || strings.HasSuffix(path, ".pyc") {
		return false
	}
	for _, dir := range []string{"/lib/", "/lib32/", "/lib64/", "/usr/lib/", "/usr/lib32/", "/usr/lib64/", "/usr/libexec/", "/usr/local/lib/", "/usr/local/libexec/"} {
		if !strings.HasPrefix(path, dir) {
			continue
		}
		name := base(path)
		dot := strings.LastIndexByte(name, '.')
		return dot < 0 || strings.Contains(name, ".so") ||
			slices.Contains([]string{".py", ".pl", ".pm", ".rb", ".js", ".mjs", ".cjs", ".php", ".jar", ".beam", ".ko", ".node", ".sh"}, name[dot:])
	}
	return path == "/etc/ld.so.preload"
}

// isShadow tells the files with password hashes.
func isShadow(path string) bool {
	return slices.Contains([]string{"/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-"}, path)
}

// managesAccounts tells programs that read password hashes as a part of their
// work: they let users in, change them, or ask PAM or the C library about them
// (cron does, and Perl whenever a user is looked up).
func managesAccounts(name string) bool {
	for _, prefix := range []string{"perl", "systemd", "sshd", "dovecot", "user", "group"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"su", "runuser", "sudo", "doas", "login", "cron", "crond", "atd", "unix_chkpwd", "passwd", "gpasswd", "chpasswd",
		"chgpasswd", "newusers", "chage", "chsh", "chfn", "pwconv", "grpconv", "pwck", "grpck", "vipw", "dropbear", "vsftpd", "proftpd", "pure-ftpd",
		"auth", "saslauthd", "auth_pam_tool", "smbd", "nscd", "sssd", "bbsuid", "getent", "expiry", "cracklib-check"}, name)
}

// isToken tells the tokens of the pod's service account.
func isToken(path string) bool {
	return strings.Contains(path, "/secrets/kubernetes.io/serviceaccount/") && base(path) == "token"
}

// isCredential tells files that hold somebody's keys by custom.
func isCredential(path string) bool {
	name := base(path)
	switch {
	case strings.HasPrefix(path, "/etc/ssh/ssh_host_") && !strings.HasSuffix(name, ".pub"):
		return true
	case strings.Contains(path, "/.ssh/") && strings.HasPrefix(name, "id_") && !strings.HasSuffix(name, ".pub"):
		return true
	case strings.HasPrefix(path, "/etc/ssl/private/") || strings.HasPrefix(path, "/etc/pki/tls/private/"):
		return true
	}
	for _, end := range []string{"/.aws/credentials", "/.kube/config", "/.docker/config.json", "/.netrc", "/.pgpass", "/.git-credentials", "/.config/gcloud/credentials.db"} {
		if strings.HasSuffix(path, end) {
			return true
		}
	}
	return false
}

// ofProcess tells whether a path is the memory or the environment of a process, and
// gives its number.
func ofProcess(path string) (string, bool) {
	parts := strings.Split(path, "/")
	if len(parts) < 4 || parts[1] != "proc" || !number(parts[2]) {
		return "", false
	}
	last := parts[len(parts)-1]
	return parts[2], last == "environ" || last == "mem"
}

// isDebugger tells programs that read other processes.
func isDebugger(name string) bool {
	return slices.Contains([]string{"gdb", "gcore", "strace", "ltrace", "lldb"}, name)
}

// listsProcesses tells programs that ask about all processes, and read a little of
// each.
func listsProcesses(name string) bool {
	return strings.HasPrefix(name, "systemd") || slices.Contains([]string{"ps", "pgrep", "pkill", "pidof", "top", "htop", "tini", "dumb-init"}, name)
}

// isRuntimeSocket tells the sockets of container runtimes.
func isRuntimeSocket(path string) bool {
	return slices.Contains([]string{"docker.sock", "containerd.sock", "crio.sock", "podman.sock"}, base(path)) &&
		(strings.HasPrefix(path, "/run/") || strings.HasPrefix(path, "/var/run/"))
}

// escapeFile tells files through which the kernel is told what to run.
func escapeFile(path string) bool {
	switch base(path) {
	case "release_agent":
		return true
	case "core_pattern", "modprobe", "hotplug":
		return strings.HasPrefix(path, "/proc/sys/kernel/")
	case "register":
		return strings.HasPrefix(path, "/proc/sys/fs/binfmt_misc/")
	}
	return path == "/proc/sysrq-trigger" || path == "/sys/kernel/uevent_helper"
}

// isDisk tells devices that hold a whole disk or the memory.
func isDisk(path string) bool {
	rest, ok := strings.CutPrefix(path, "/dev/")
	if !ok {
		return false
	}
	for _, prefix := range []string{"sd", "vd", "xvd", "nvme", "dm-"} {
		if after, ok := strings.CutPrefix(rest, prefix); ok && after != "" && !strings.Contains(after, "/") {
			return true
		}
	}
	return rest == "mem" || rest == "kmem" || rest == "port"
}

// escapeSyscall tells system calls that servers do not make, and that reach out of
// a container where they are allowed.
func escapeSyscall(name string) bool {
	return slices.Contains([]string{"mount", "umount", "umount2", "move_mount", "fsmount", "mount_setattr", "pivot_root", "unshare", "setns",
		"ptrace", "process_vm_readv", "process_vm_writev", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
		"bpf", "open_by_handle_at", "reboot", "swapon", "swapoff", "iopl", "ioperm"}, name)
}

// escapeCapability tells uses of capabilities that reach out of a container. The
// kernel asks for some of them at many occasions, so the system call counts too.
func escapeCapability(name, syscall string) bool {
	switch name {
	case "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "BPF", "MAC_ADMIN", "MAC_OVERRIDE":
		return true
	case "SYS_PTRACE":
		return slices.Contains([]string{"ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"}, syscall)
	case "DAC_READ_SEARCH":
		return syscall == "open_by_handle_at"
	case "MKNOD":
		return strings.HasPrefix(syscall, "mknod")
	case "SYS_ADMIN":
		return escapeSyscall(syscall) || slices.Contains([]string{"fsopen", "open_tree", "clone", "clone3", "keyctl", "perf_event_open"}, syscall)
	}
	return false
}
