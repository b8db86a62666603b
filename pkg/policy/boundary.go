package policy

import (
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Sensitive tells why a path is one whose readers should be few and named, in
// words: secrets, keys, password files, the sockets of container runtimes, what
// other processes hold. It is empty for any other path.
func Sensitive(path string) string {
	if why := sensitivePlace(path); why != "" {
		return why
	}
	last, depth, process := "", 0, strings.HasPrefix(path, "/proc/")
	for part := range strings.SplitSeq(path, "/") {
		switch part {
		case ".ssh", ".gnupg", ".aws", ".kube", ".docker", ".azure", ".gcloud", "secrets", "private":
			return "keys or credentials"
		case "environ", "mem", "root", "cwd":
			if process && depth == 3 {
				return "what another process holds"
			}
		}
		last, depth = part, depth+1
	}
	if strings.HasPrefix(path, "/etc/ssl/certs/") || strings.HasPrefix(path, "/usr/share/ca-certificates/") {
		return "" // everybody's certificates
	}
	return SensitiveName(last)
}

const runtimeSocket = "a container runtime's socket"

// sensitivePlace tells it of a path by where it is.
func sensitivePlace(path string) string {
	if !strings.HasPrefix(path, "/run") && !strings.HasPrefix(path, "/etc/") && !strings.HasPrefix(path, "/var/") {
		return ""
	}
	for _, s := range []struct{ prefix, why string }{
		{"/run/secrets/", "secrets of the pod"},
		{"/var/run/secrets/", "secrets of the pod"},
		{"/etc/shadow", "password hashes"},
		{"/etc/gshadow", "password hashes"},
		{"/etc/sudoers", "rights to become root"},
		{"/etc/ssl/private/", "private keys"},
		{"/etc/pki/tls/private/", "private keys"},
		{"/etc/ssh/", "keys of the SSH server"},
		{"/etc/kubernetes/", "credentials of the cluster"},
		{"/var/lib/kubelet/", "credentials of the cluster"},
		{"/run/docker", runtimeSocket},
		{"/run/containerd/", runtimeSocket},
		{"/run/crio/", runtimeSocket},
		{"/run/cri-dockerd", runtimeSocket},
		{"/run/podman/", runtimeSocket},
		{"/run/k3s/", runtimeSocket},
		{"/var/lib/docker/", "other containers' files"},
		{"/var/lib/containerd/", "other containers' files"},
		{"/var/lib/containers/", "other containers' files"},
	} {
		at := path
		if strings.HasPrefix(s.prefix, "/run/") {
			at = strings.TrimPrefix(path, "/var")
		}
		if strings.HasPrefix(at, s.prefix) || at+"/" == s.prefix {
			return s.why
		}
	}
	return ""
}

// SensitiveName tells the same of a file's name, wherever the file is.
func SensitiveName(name string) string {
	switch name {
	case "docker.sock", "containerd.sock", "crio.sock", "podman.sock":
		return runtimeSocket
	case "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", ".pgpass", ".netrc", ".my.cnf", ".git-credentials", ".htpasswd", ".dockercfg", ".env", "token":
		return "keys or credentials"
	}
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		switch name[dot:] {
		case ".key", ".pem", ".p12", ".pfx", ".jks", ".keytab":
			return "keys or certificates"
		}
	}
	return ""
}

// Boundary tells why dir, which ends in a slash, must not be opened as a whole
// to the given access, in words, however many of the names in it were used. It
// is empty where that may be done.
func Boundary(dir string, access behavior.Access) string {
	if why := Sensitive(dir); why != "" {
		return why
	}
	switch dir {
	case "/", "/etc/", "/usr/", "/var/", "/run/", "/var/run/", "/dev/", "/home/", "/root/", "/boot/", "/opt/", "/srv/", "/mnt/", "/var/lib/":
		return "a folder of the system"
	}
	for _, tree := range []string{"/proc/", "/sys/", "/boot/"} {
		if strings.HasPrefix(dir, tree) {
			return "a view of the kernel"
		}
	}
	if access&(behavior.Write|behavior.Create) == 0 {
		return ""
	}
	if strings.HasPrefix(dir, "/etc/") || strings.HasPrefix(dir, "/usr/") {
		return "programs and their configuration"
	}
	isCode := func(part string) bool {
		return slices.Contains([]string{"bin", "sbin", "lib", "lib32", "lib64", "libexec"}, part)
	}
	parts := strings.Split(strings.Trim(dir, "/"), "/")
	if len(parts) > 0 && parts[0] == "var" { // /var/lib holds data
		parts = parts[min(2, len(parts)):]
	}
	if slices.ContainsFunc(parts, isCode) {
		return "programs and libraries"
	}
	return ""
}
