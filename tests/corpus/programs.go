//go:build linux

package main

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// programs is the list of all.
func programs() []program {
	return []program{nginx(), redis()}
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
	return strings.Fields("curl wrk redis-tools netcat-openbsd socat procps")
}

func nginx() program {
	return program{
		name: "nginx", inCI: true, packages: []string{"nginx-light"},
		prepare: `mkdir -p /var/lib/nginx /var/log/nginx /srv/www/static /srv/www/docs/a; chown www-data /var/lib/nginx
for i in $(seq 1 40); do echo "page $i" >/srv/www/static/page-$i.html; done; echo hidden >/srv/www/secret.html; chmod 600 /srv/www/secret.html
seq 1 60000 >/srv/www/static/large.txt; echo start >/srv/www/index.html; echo deep >/srv/www/docs/a/deep.html; ln -s index.html /srv/www/link.html`,
		files: map[string]string{"/etc/nginx/nginx.conf": `daemon off; user www-data; pid /run/nginx.pid; error_log /var/log/nginx/error.log; worker_processes 2;
events { worker_connections 256; }
http { include /etc/nginx/mime.types; access_log /var/log/nginx/access.log; client_body_buffer_size 1k; gzip on;
 proxy_cache_path /var/cache/nginx levels=1:2 keys_zone=c:1m;
 server { listen 8080; root /srv/www; client_max_body_size 8m; error_page 404 /index.html;
  location /upload/ { proxy_pass http://127.0.0.1:8081/; proxy_request_buffering on; }
  location /cached/ { proxy_pass http://127.0.0.1:8081/; proxy_cache c; proxy_cache_valid 200 1m; } 
  location /docs/ { autoindex on; } }
 server { listen 127.0.0.1:8081; location / { return 200 "taken\n"; } } }
`},
		args: []string{"nginx"}, volumes: []string{"/var/log/nginx", "/var/cache/nginx"},
		ready: "curl -sf http://$POD:8080/ -o /dev/null",
		train: []step{
			client("for i in 1 2 3; do curl -sf http://$POD:8080/static/page-$((i*RUN)).html; done; curl -sf --compressed http://$POD:8080/static/large.txt -o /dev/null"),
			client("curl -sf http://$POD:8080/cached/one$RUN; curl -sf http://$POD:8080/cached/two$RUN; curl -sf http://$POD:8080/cached/three$RUN; curl -sf http://$POD:8080/cached/one"),
			client("for i in $(seq $((2+RUN))); do head -c $((i*20000)) /dev/zero | curl -sf --data-binary @- http://$POD:8080/upload/x$i; done"),
			client("curl -s http://$POD:8080/missing; curl -s http://$POD:8080/secret.html; curl -sf http://$POD:8080/docs/a/"),
			aside("mv $V0/access.log $V0/access.log.1; mv $V0/error.log $V0/error.log.1"), send(unix.SIGUSR1), wait(second),
			client("curl -sf http://$POD:8080/link.html"), send(unix.SIGHUP), wait(second), client("curl -sf http://$POD:8080/"),
		},
		evaluate: []step{
			client("for i in $(seq 1 40); do curl -sf http://$POD:8080/static/page-$i.html; done"),
			client("wrk -t1 -c20 -d3s http://$POD:8080/static/large.txt"), client("wrk -t1 -c60 -d2s http://$POD:8080/"),
			client("for i in $(seq 1 60); do curl -sf http://$POD:8080/cached/item-$i; done"),
			client("for i in $(seq 1 20); do head -c $((i*40000)) /dev/zero | curl -sf --data-binary @- http://$POD:8080/upload/$i & done; wait"),
			client("curl -s http://$POD:8080/nothing/here; curl -s http://$POD:8080/../../etc/passwd --path-as-is; printf 'BAD\\r\\n\\r\\n' | nc -N $POD 8080"),
			client("head -c 9000000 /dev/zero | curl -s --data-binary @- http://$POD:8080/upload/too-large || true"),
			aside("for i in 3 2 1; do [ ! -e $V0/access.log.$i ] || mv $V0/access.log.$i $V0/access.log.$((i+1)); done; mv $V0/access.log $V0/access.log.1"), send(unix.SIGUSR1), wait(second),
			replica(), client("for p in $PODS; do curl -sf http://$p:8080/docs/; curl -sf http://$p:8080/static/page-7.html; done"),
			restart(unix.SIGQUIT), client("curl -sf http://$POD:8080/docs/a/deep.html"), send(unix.SIGHUP), wait(second),
			client("for i in $(seq 1 10); do curl -sf http://$POD:8080/cached/item-$i; done"), restart(unix.SIGKILL),
			client("wrk -t1 -c20 -d2s http://$LAST:8080/docs/"), send(unix.SIGUSR1), wait(second), client("curl -sf http://$POD:8080/"),
		},
	}
}

func redis() program {
	cli := "redis-cli -h $POD "
	return program{
		name: "redis", inCI: true, packages: []string{"redis-server"},
		prepare: "echo 'redis:x:999:999::/data:/bin/sh' >>/etc/passwd; echo 'redis:x:999:' >>/etc/group; chown 999:999 /data",
		files:   map[string]string{"/etc/redis.conf": "bind 0.0.0.0\nprotected-mode no\ndir /data\nappendonly yes\nsave 3600 1\nauto-aof-rewrite-min-size 1mb\n"},
		uid:     999, args: []string{"redis-server", "/etc/redis.conf"}, volumes: []string{"/data"},
		probe: []string{"redis-cli", "ping"}, ready: cli + "ping",
		train: []step{
			client(cli + "set a 1; " + cli + "get a; " + cli + "lpush l 1 2 3; " + cli + "info >/dev/null; " + cli + "config get dir"),
			client(cli + "bgsave; sleep 1; for i in $(seq $RUN); do " + cli + "bgrewriteaof; sleep 1; done; " + cli + "lastsave"),
			client(cli + "eval 'return redis.call(\"get\",KEYS[1])' 1 a; " + cli + "nonsense; " + cli + "config rewrite || true"),
		},
		evaluate: []step{
			client("redis-benchmark -h $POD -q -n 30000 -c 40 -t set,get,lpush,lrange,sadd,hset"),
			client(cli + "bgsave; sleep 1; " + cli + "bgrewriteaof; sleep 1; " + cli + "save"),
			client(cli + "get missing; " + cli + "incr l || true; " + cli + "set big $(head -c 100000 /dev/zero | tr '\\0' x) >/dev/null; " + cli + "multi; " + cli + "subscribe"),
			replica(), client("redis-cli -h $LAST replicaof no one; redis-benchmark -h $LAST -q -n 2000 -c 10"),
			restart(unix.SIGTERM), client(cli + "dbsize; " + cli + "bgrewriteaof; sleep 1"), restart(unix.SIGKILL), client(cli + "dbsize"),
			client("redis-cli -h $POD --rdb /tmp/dump.rdb"), client("redis-benchmark -h $POD -q -n 10000 -r 100000 -d 200 -t set; " + cli + "bgsave; sleep 1"),
			person("redis-cli", "client", "list"),
		},
	}
}
