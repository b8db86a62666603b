//go:build linux && amd64

package main

import (
	"golang.org/x/sys/unix"
)

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
		worker: 33, args: []string{"nginx"}, volumes: []string{"/var/log/nginx", "/var/cache/nginx"},
		ready: "curl -sf http://$POD:8080/ -o /dev/null",
		train: []step{
			client("for i in $(seq 3 3 36); do curl -sf http://$POD:8080/static/page-$((i+RUN)).html; done; curl -sf --compressed http://$POD:8080/static/large.txt -o /dev/null"),
			client("for i in $(seq 12); do curl -sf http://$POD:8080/cached/$RUN-$i; done; curl -sf http://$POD:8080/cached/$RUN-1"),
			client("for i in $(seq $((12+RUN))); do head -c $((i*20000)) /dev/zero | curl -sf --data-binary @- http://$POD:8080/upload/x$i; done"),
			client("curl -s http://$POD:8080/missing; curl -s http://$POD:8080/secret.html; curl -sf http://$POD:8080/docs/a/; curl -sf http://$POD:8080/docs/; curl -sf http://$POD:8080/docs/a/deep.html"),
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

func apache() program {
	return program{
		name: "apache-php", packages: []string{"apache2", "libapache2-mod-php8.2", "php8.2-sqlite3"},
		prepare: `rm -rf /var/run; ln -s /run /var/run; a2enmod -q php8.2 mpm_prefork authz_core authz_host authn_core access_compat alias dir autoindex env mime negotiation setenvif filter deflate reqtimeout rewrite >/dev/null
a2ensite -q 000-default >/dev/null; a2dissite -q 000-default >/dev/null; mkdir -p /etc/php/8.2/apache2/conf.d /var/lib/php/sessions /var/www/data /var/log/apache2 /run/apache2
chmod 1733 /var/lib/php/sessions; chown www-data /var/www/data; cp /usr/lib/php/8.2/php.ini-production /etc/php/8.2/apache2/php.ini
for m in pdo session sqlite3 pdo_sqlite fileinfo; do [ ! -e /usr/lib/php/20220829/$m.so ] || echo "extension=$m.so" >/etc/php/8.2/apache2/conf.d/20-$m.ini; done
for i in $(seq 1 20); do echo "<?php echo 'part $i';" >/var/www/html/part-$i.php; echo "text $i" >/var/www/html/text-$i.txt; done`,
		files: map[string]string{
			"/usr/local/bin/apache2-foreground": "#!/bin/bash\nset -e\n: \"${APACHE_CONFDIR:=/etc/apache2}\"\n. \"$APACHE_CONFDIR/envvars\"\nmkdir -p \"$APACHE_RUN_DIR\" \"$APACHE_LOCK_DIR\" \"$APACHE_LOG_DIR\"\nrm -f \"$APACHE_PID_FILE\"\nexec apache2 -DFOREGROUND \"$@\"\n",
			"/etc/apache2/sites-enabled/app.conf": `ServerName app
<VirtualHost *:80>
 DocumentRoot /var/www/html
 ErrorLog /var/log/apache2/error.log
 CustomLog /var/log/apache2/access.log combined
 <Directory /var/www/html>
  AllowOverride All
  Options +Indexes
 </Directory>
</VirtualHost>
`,
			"/var/www/html/index.php":   "<?php include __DIR__ . '/part-' . (int)($_GET['p'] ?? 1) . '.php';",
			"/var/www/html/session.php": "<?php session_start(); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; echo $_SESSION['n'];",
			"/var/www/html/upload.php":  "<?php move_uploaded_file($_FILES['f']['tmp_name'], '/var/www/data/' . basename($_FILES['f']['name'])); echo 'ok';",
			"/var/www/html/data.php":    "<?php $db = new PDO('sqlite:/var/www/data/app.db'); $db->exec('create table if not exists t (k text)'); $db->prepare('insert into t values (?)')->execute([$_GET['k']]); echo $db->query('select count(*) from t')->fetchColumn();",
			"/var/www/html/error.php":   "<?php throw new Exception('wrong');",
		},
		worker: 33, args: []string{"apache2-foreground"}, volumes: []string{"/var/www/data", "/var/log/apache2"}, ready: "curl -sf http://$POD/ -o /dev/null",
		train: []step{
			client("for i in $(seq 8); do curl -sf \"http://$POD/?p=$((i+RUN))\"; curl -sf http://$POD/text-$((i+2*RUN)).txt; done"),
			client("for i in $(seq $((10+RUN))); do curl -sf http://$POD/session.php; done; for i in $(seq $((10+RUN))); do head -c 3000 /dev/zero | curl -sf -F f=@-\\;filename=file-$RUN$i.dat http://$POD/upload.php; done"),
			client("for i in 1 2 3; do curl -sf http://$POD/data.php?k=$i$RUN; done; curl -s http://$POD/error.php; curl -s http://$POD/missing"),
			aside("mv $V1/access.log $V1/access.log.1"), send(unix.SIGUSR1), wait(second), client("curl -sf http://$POD/text-1.txt"),
			send(unix.SIGHUP), wait(second), client("curl -sf http://$POD/"),
		},
		evaluate: []step{
			client("for i in $(seq 1 20); do curl -sf http://$POD/?p=$i; curl -sf http://$POD/text-$i.txt; done"),
			client("wrk -t1 -c30 -d3s http://$POD/session.php; wrk -t1 -c10 -d2s http://$POD/data.php?k=x; wrk -t1 -c20 -d2s http://$POD/text-3.txt"),
			client("for i in $(seq 1 30); do head -c $((i*20000)) /dev/zero | curl -s -F f=@-\\;filename=other-$i.dat http://$POD/upload.php; done"),
			client("curl -s http://$POD/error.php; curl -s http://$POD/none; curl -s http://$POD/ -X BREW; curl -s --path-as-is http://$POD/../../etc/passwd"),
			aside("mv $V1/access.log.1 $V1/access.log.2 || true; mv $V1/access.log $V1/access.log.1; mv $V1/error.log $V1/error.log.1"), send(unix.SIGUSR1), wait(second),
			replica(), client("for p in $PODS; do curl -sf http://$p/?p=9; curl -sf http://$p/session.php; done"),
			restart(unix.SIGWINCH), client("curl -sf http://$POD/data.php?k=z"), send(unix.SIGHUP), wait(second), restart(unix.SIGKILL), client("curl -sf http://$POD/?p=4"),
		},
	}
}

func haproxy() program {
	return program{
		name: "haproxy", packages: []string{"haproxy"},
		prepare: "echo 'haproxy:x:99:99::/var/lib/haproxy:/bin/sh' >>/etc/passwd; echo 'haproxy:x:99:' >>/etc/group; mkdir -p /var/lib/haproxy /run/haproxy; chown 99:99 /var/lib/haproxy /run/haproxy",
		files: map[string]string{"/usr/local/etc/haproxy/haproxy.cfg": `global
 log stdout format raw local0
 maxconn 1000
 stats socket /run/haproxy/admin.sock mode 660
resolvers cluster
 parse-resolv-conf
defaults
 mode http
 timeout connect 2s
 timeout client 10s
 timeout server 10s
 log global
 option httplog
frontend web
 bind *:8080
 http-request return status 200 content-type text/plain string "fine" if { path /healthz }
 use_backend nowhere if { path_beg /nowhere }
 default_backend up
backend up
 balance roundrobin
 option httpchk GET /
 server one upstream.platform.svc.cluster.local:9000 check inter 1s resolvers cluster init-addr last,libc,none
backend nowhere
 server two 10.88.0.250:9 check inter 2s
listen stats
 bind *:8404
 stats enable
 stats uri /
`},
		uid: 99, args: []string{"haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"}, ready: "curl -sf http://$POD:8080/healthz",
		train: []step{
			wait(2 * second), client("for i in $(seq $((3+RUN))); do curl -sf http://$POD:8080/ -o /dev/null; done; curl -s http://$POD:8080/nowhere; curl -sf http://$POD:8404/ -o /dev/null"),
			send(unix.SIGUSR2), wait(2 * second), client("curl -sf http://$POD:8080/ -o /dev/null"),
		},
		evaluate: []step{
			wait(2 * second), client("wrk -t1 -c40 -d4s http://$POD:8080/healthz; wrk -t1 -c10 -d2s http://$POD:8080/"), client("curl -s http://$POD:8080/nowhere/at/all; printf 'BAD\\r\\n\\r\\n' | nc -N $POD 8080"),
			replica(), client("for p in $PODS; do curl -s http://$p:8080/file -o /dev/null; curl -sf 'http://$POD:8404/;csv' -o /dev/null || true; done"), send(unix.SIGUSR2), wait(2 * second),
			restart(unix.SIGTERM), client("curl -sf http://$POD:8080/healthz"), restart(unix.SIGKILL), wait(2 * second), client("curl -sf http://$POD:8080/"), restart(unix.SIGUSR1), client("curl -sf http://$POD:8080/healthz"),
		},
	}
}

func busybox() program {
	return program{
		name: "busybox", packages: []string{"busybox-static"},
		prepare: "cp $(command -v busybox) /busybox; busybox=/busybox; for a in $($busybox --list-full); do $busybox ln -sf $busybox /$a 2>/dev/null || true; done; mkdir -p /srv/www/cgi-bin; for i in 1 2 3 4 5 6 7 8 9; do echo $i >/srv/www/$i.html; done",
		files: map[string]string{
			"/srv/www/cgi-bin/time": "#!/bin/sh\necho Content-Type: text/plain\necho\ndate\nuptime\nwc -l </srv/log/requests\n",
			"/entrypoint.sh":        "#!/bin/sh\necho started >>/srv/log/requests\nhttpd -f -p 8080 -h /srv/www &\nchild=$!\ntrap 'kill $child; exit 0' TERM\nwhile :; do date >>/srv/log/requests; if [ $(wc -c </srv/log/requests) -gt 100 ]; then mv /srv/log/requests /srv/log/requests.$(date +%s); gzip -f /srv/log/requests.[0-9]*[0-9]; echo new >/srv/log/requests; fi; sleep 1 & wait $!; done\n",
		},
		args: []string{"/entrypoint.sh"}, volumes: []string{"/srv/log"}, ready: "curl -sf http://$POD:8080/1.html",
		train: []step{client("curl -sf http://$POD:8080/cgi-bin/time; for i in 1 2 3; do curl -sf http://$POD:8080/$((i+2*RUN)).html; done; curl -s http://$POD:8080/none"), wait(6 * second)},
		evaluate: []step{client("for i in 1 2 3 4 5 6 7 8 9; do curl -sf http://$POD:8080/$i.html; curl -sf http://$POD:8080/cgi-bin/time; done; curl -s http://$POD:8080/../etc/passwd --path-as-is; curl -s http://$POD:8080/cgi-bin/none"), wait(5 * second),
			replica(), client("curl -sf http://$LAST:8080/cgi-bin/time"), restart(unix.SIGTERM), wait(8 * second), restart(unix.SIGKILL), client("curl -sf http://$POD:8080/2.html"), wait(3 * second)},
	}
}
