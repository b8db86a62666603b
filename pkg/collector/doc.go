// Package collector runs on one node and says which container did what: it gives
// the records of the probes to the containers of the node's pods, adds what those
// containers held when it came, keeps all of it within bounds, and serves it on
// loopback until its deadline.
//
// It must never talk to a container runtime, write anything inside a container,
// outlive its deadline, or lose a fact without counting it.
package collector
