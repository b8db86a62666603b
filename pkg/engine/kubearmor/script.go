package kubearmor

import (
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// takeScripts allows to run what is likely a script. The enforcer asks for the
// script as well as for its interpreter, but all that is seen of a script is that
// its interpreter reads it. Whoever may run the interpreter and have it read the
// file gains nothing by running it.
func (d *draft) takeScripts(files []policy.Rule) {
	var names []string
	for _, r := range files {
		if r.Match != policy.Exact || !r.Access.Has(behavior.Read) || !slices.ContainsFunc(r.Exes, func(exe string) bool { return mayBeScript(exe, r.Path) }) {
			continue
		}
		if path, why := say(r.Path); why == "" {
			d.process = append(d.process, entry{path: path})
			names = append(names, r.Path)
		}
	}
	if names = slices.Compact(names); len(names) > 0 {
		d.note("KubeArmor asks for a script as well as for its interpreter, so these may be run, for an interpreter reads them: %s", strings.Join(names, ", "))
	}
}

// mayBeScript tells whether a file that exe reads may be a script that it
// interprets: of a shell, whatever is not data of the system; of others, which
// read modules by the hundred, what lies where programs do.
func mayBeScript(exe, path string) bool {
	for _, data := range []string{"/etc/", "/proc/", "/sys/", "/dev/", "/usr/share/", "/usr/lib/", "/lib/", "/lib64/", "/run/secrets/", "/var/run/"} {
		if strings.HasPrefix(path, data) {
			return false
		}
	}
	name := exe[strings.LastIndexByte(exe, '/')+1:]
	if slices.Contains([]string{"sh", "dash", "bash", "ash", "busybox", "ksh", "mksh", "zsh"}, name) {
		return path != exe
	}
	interpreter := slices.ContainsFunc([]string{"python", "perl", "ruby", "node", "php", "lua", "tclsh", "gawk", "mawk"},
		func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	return interpreter && path != exe &&
		(strings.Contains(path, "/bin/") || strings.Contains(path, "/sbin/") || strings.Contains(path, "entrypoint"))
}
