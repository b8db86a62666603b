// Package kubearmor reads what KubeArmor saw of a namespace: from its relay, or from
// the JSON that 'karmor logs --json' wrote into a file.
//
// KubeArmor tells what was attempted, spelled as the program spelled it, and only
// what its visibility settings ask for. The package must never take an attempt that
// failed for something that was done, muted alerts for quiet, or a kind that nothing
// was told of for one that was watched.
package kubearmor
