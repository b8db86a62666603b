//go:build linux && amd64

package main

import (
	"fmt"
	"strings"
)

// programs is the list of all.
func programs() []program {
	return []program{
		nginx(), apache(), haproxy(), busybox(),
		redis(), memcached(), postgres(), mariadb(), rabbitmq(), mosquitto(),
		pythonService(), nodeService(), javaService(), cronJob(),
	}
}

// choose finds programs by their names.
func choose(names string) ([]program, error) {
	var chosen []program
	for _, p := range programs() {
		if names == "ALL" || names == "" && p.inCI {
			chosen = append(chosen, p)
		}
	}
	if names == "ALL" || names == "" {
		return chosen, nil
	}
next:
	for name := range strings.SplitSeq(names, ",") {
		for _, p := range programs() {
			if p.name == name {
				chosen = append(chosen, p)
				continue next
			}
		}
		return nil, fmt.Errorf("program %q: there is none of that name", name)
	}
	return chosen, nil
}

// clientPackages are what the clients are run from.
func clientPackages() []string {
	return strings.Fields("curl wrk redis-tools netcat-openbsd procps postgresql-15 mariadb-client amqp-tools mosquitto-clients python3 dnsmasq-base")
}
