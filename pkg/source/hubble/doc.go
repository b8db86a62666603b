// Package hubble reads a namespace's traffic from Hubble: from a relay, a node's
// server, or what 'hubble observe' wrote into a file.
//
// Hubble sees the traffic of pods, and neither programs nor containers: its facts
// name no executable, and its coverage claims nothing but traffic. What policies
// denied is reported, and never a fact. The package must never take an answer for
// a question, a client's port for a server's, or a flow that it cannot read for
// none.
package hubble
