//go:build linux && amd64

package main

import (
	"time"

	"golang.org/x/sys/unix"
)

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
			client(cli + "bgsave; sleep 1; for i in $(seq 3); do " + cli + "bgrewriteaof; sleep 1; " + cli + "bgsave; sleep 1; done; " + cli + "client list; " + cli + "lastsave"),
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

func memcached() program {
	return program{
		name: "memcached", packages: []string{"memcached"}, uid: 11211,
		prepare: "echo 'memcache:x:11211:11211::/:/bin/sh' >>/etc/passwd; echo 'memcache:x:11211:' >>/etc/group",
		asRoot:  []string{"memcached", "-u", "root"}, args: []string{"memcached", "-m", "64", "-o", "modern"}, ready: "printf 'version\\r\\nquit\\r\\n' | nc -N $POD 11211 | grep -q VERSION",
		train:    []step{client("for i in $(seq $((5*RUN))); do printf \"set k$i 0 0 3\\r\\nabc\\r\\nget k$i\\r\\nquit\\r\\n\" | nc -N $POD 11211; done; printf 'stats\\r\\nnonsense\\r\\nquit\\r\\n' | nc -N $POD 11211"), wait(second)},
		evaluate: []step{client("for i in $(seq 1 60); do (printf \"set key-$i 0 0 5000\\r\\n\"; head -c 5000 /dev/zero | tr '\\0' x; printf \"\\r\\nget key-$i\\r\\nincr n 1\\r\\ndelete k\\r\\nquit\\r\\n\") | nc -N $POD 11211 >/dev/null & done; wait"), client("printf 'stats slabs\\r\\nflush_all\\r\\nbad command line\\r\\nquit\\r\\n' | nc -N $POD 11211"), wait(3 * second), replica(), restart(unix.SIGTERM), client("printf 'get a\\r\\nquit\\r\\n' | nc -N $POD 11211"), restart(unix.SIGKILL), restart(unix.SIGUSR1)},
	}
}

func postgres() program {
	const bin = "/usr/lib/postgresql/15/bin/"
	psql := "psql -q -h $POD -U postgres -v ON_ERROR_STOP=1 "
	return program{
		name: "postgres", packages: []string{"postgresql-15"}, uid: 999, limit: time.Minute,
		prepare: "rm -rf /var/run; ln -s /run /var/run; echo 'postgres:x:999:999::/var/lib/postgresql:/bin/sh' >>/etc/passwd; echo 'postgres:x:999:' >>/etc/group; mkdir -p /var/run/postgresql /archive; chown 999:999 /var/run/postgresql /archive",
		files:   map[string]string{"/usr/local/bin/docker-entrypoint.sh": "#!/bin/bash\nset -e\nexport PATH=" + bin + ":$PATH\nif [ ! -s \"$PGDATA/PG_VERSION\" ]; then\n initdb -A trust -U postgres >/dev/null\n printf 'host all all all trust\\nhost replication all all trust\\n' >>\"$PGDATA/pg_hba.conf\"\nfi\nexec postgres -h 0.0.0.0 -c max_wal_size=64MB -c min_wal_size=32MB -c checkpoint_timeout=30s -c autovacuum_naptime=1s -c logging_collector=on -c log_rotation_age=1min \"$@\"\n"},
		env:     []string{"PGDATA=/var/lib/postgresql/data"}, args: []string{"docker-entrypoint.sh"}, asRoot: []string{"bash", "-c", "while :; do sleep 1; done"}, volumes: []string{"/var/lib/postgresql"}, ready: "pg_isready -h $POD",
		train: []step{
			client(psql + "-c 'create table t (k int primary key, v text)' -c \"insert into t select i, repeat('x',200) from generate_series(1,$((20000*RUN))) i\" -c 'select count(*) from t' -c 'create index on t (v)' -c 'create database other'"),
			client("psql -h $POD -U postgres -d other -c 'create table u (a int)' -c 'drop table u'; psql -h $POD -U postgres -c 'select * from missing' || true; pg_dump -h $POD -U postgres postgres >/tmp/dump.sql"),
			client(psql + "-c \"set work_mem='64kB'\" -c 'select v, k from t order by v desc, k offset 19000' >/dev/null; " + psql + "-c 'checkpoint' -c 'vacuum analyze t' -c 'select pg_reload_conf()' -c 'select pg_switch_wal()' -c 'select pg_rotate_logfile()'"), wait(2 * second),
			client("pg_basebackup -h $POD -U postgres -D /tmp/base -X stream; rm -rf /tmp/base; " + psql + "-c 'drop database other' -c 'create table w as select * from t' -c 'truncate t' -c 'alter table w add c int default 7' -c 'vacuum full w'"), restart(unix.SIGTERM),
			client(psql + "-c 'select count(*) from w'"),
		},
		evaluate: []step{
			client(bin + "pgbench -h $POD -U postgres -i -q -s 4 postgres; " + bin + "pgbench -h $POD -U postgres -c 8 -j 2 -T 6 postgres"),
			client(psql + "-c \"set work_mem='64kB'\" -c 'select * from pgbench_accounts order by filler, bid desc, aid desc offset 399000' >/dev/null; " + psql + "-c 'create schema s' -c 'create table s.wide as select * from pgbench_accounts' -c 'create index on s.wide (abalance)' -c 'create database second' -c 'create database third'"),
			client("psql -h $POD -U postgres -d third -c 'create table z (a serial, b jsonb)' -c \"insert into z (b) select '{}' from generate_series(1,1000)\"; pg_dumpall -h $POD -U postgres >/tmp/all.sql; pg_dump -Fd -j 2 -h $POD -U postgres -f /tmp/dir postgres; rm -rf /tmp/dir"),
			client("for i in 1 2 3 4 5; do " + psql + "-c 'select pg_switch_wal()' -c 'checkpoint'; done; " + psql + "-c 'select pg_rotate_logfile()' -c 'select pg_reload_conf()' -c 'vacuum full s.wide' -c 'reindex table s.wide' -c 'drop table s.wide'; psql -h $POD -U postgres -c 'select 1/0' || true; psql -h $POD -U nobody -d none -c 'select 1' || true"),
			client("pg_basebackup -h $POD -U postgres -D /tmp/base -X stream; rm -rf /tmp/base"), replica(), client("psql -h $LAST -U postgres -c 'create table only_here (a int)'"),
			restart(unix.SIGTERM), client(bin + "pgbench -h $POD -U postgres -c 4 -T 2 postgres"), restart(unix.SIGKILL), client(bin + "pgbench -h $POD -U postgres -c 4 -T 3 postgres; " + psql + "-c 'drop database third' -c 'truncate pgbench_history'"), restart(unix.SIGINT), client(psql + "-c 'select count(*) from pgbench_accounts'"),
		},
	}
}

func mariadb() program {
	sql := "mariadb -h $POD -u root --skip-ssl "
	return program{
		name: "mariadb", packages: []string{"mariadb-server"}, uid: 999, limit: time.Minute,
		prepare: "echo 'mysql:x:999:999::/var/lib/mysql:/bin/sh' >>/etc/passwd; echo 'mysql:x:999:' >>/etc/group; mkdir -p /run/mysqld /var/lib/mysql; chown 999:999 /run/mysqld /var/lib/mysql; rm -f /etc/mysql/my.cnf; printf '[client-server]\\nsocket=/run/mysqld/mysqld.sock\\n!includedir /etc/mysql/conf.d/\\n!includedir /etc/mysql/mariadb.conf.d/\\n' >/etc/mysql/my.cnf",
		files:   map[string]string{"/usr/local/bin/docker-entrypoint.sh": "#!/bin/bash\nset -e\nif [ ! -d /var/lib/mysql/mysql ]; then\n mariadb-install-db --auth-root-authentication-method=normal --skip-test-db >/dev/null\n printf '%s\\n' \"create user root@'%';\" \"grant all on *.* to root@'%' with grant option;\" >/tmp/init.sql\n exec mariadbd --init-file=/tmp/init.sql \"$@\"\nfi\nexec mariadbd \"$@\"\n"},
		args:    []string{"docker-entrypoint.sh", "--bind-address=0.0.0.0", "--skip-name-resolve", "--general-log=1", "--general-log-file=general.log", "--log-bin=bin", "--max-binlog-size=1M", "--server-id=1"}, asRoot: []string{"bash", "-c", "while :; do sleep 1; done"}, volumes: []string{"/var/lib/mysql"}, ready: "mariadb -h $POD -u root --skip-ssl -e 'select 1'",
		train: []step{
			client(sql + "-e \"create database d; use d; create table t (k int primary key auto_increment, v text); insert into t (v) select repeat('x',200) from seq_1_to_$((10000*RUN)); select count(*) from t; create index i on t (v(20)); create table m (a int) engine=aria; drop table m\""),
			client(sql + "-e \"set tmp_memory_table_size=0; use d; select v, count(*) c from t group by v, k order by c limit 1; select * from missing\" || true; mariadb-dump -h $POD -u root --skip-ssl --all-databases >/tmp/my.sql"),
			client(sql + "-e 'flush logs; flush tables; flush binary logs; optimize table d.t; alter table d.t add c int; analyze table d.t; create user u; drop user u; create table d.n (a int); truncate d.n; rename table d.n to d.o; drop table d.o; create database e; drop database e'"), restart(unix.SIGTERM), client(sql + "-e 'select count(*) from d.t; purge binary logs before now()'"),
		},
		evaluate: []step{
			client("mariadb-slap -h $POD -u root --skip-ssl --auto-generate-sql --concurrency=10 --number-of-queries=2000 --auto-generate-sql-load-type=mixed"),
			client(sql + "-e \"create database shop; use shop; create table orders (id int primary key auto_increment, who varchar(50), note text) ; insert into orders (who, note) select concat('p',seq), repeat('y',300) from seq_1_to_60000; create table items like orders; insert into items select * from orders limit 30000; create index w on items (who); set tmp_memory_table_size=0; select note, count(*) c from orders group by note, id order by c limit 1\" >/dev/null"),
			client("mariadb-dump -h $POD -u root --skip-ssl --single-transaction shop >/tmp/shop.sql; mariadb -h $POD -u root --skip-ssl -e 'create database again'; mariadb -h $POD -u root --skip-ssl again </tmp/shop.sql; " + sql + "-e 'select * from nowhere.at_all' || true; mariadb -h $POD -u nobody --skip-ssl -e 'select 1' || true"),
			client("for i in 1 2 3 4; do " + sql + "-e 'flush logs; flush binary logs; optimize table shop.orders'; done; " + sql + "-e 'alter table shop.items add c int, add index (c); rename table shop.items to shop.things; drop table shop.things; drop database again; check table shop.orders'"),
			replica(), client("mariadb -h $LAST -u root --skip-ssl -e 'create database here; create table here.t (a int)'"), restart(unix.SIGTERM), client(sql + "-e 'select count(*) from shop.orders'"), restart(unix.SIGKILL), client(sql + "-e 'insert into shop.orders (who) select seq from seq_1_to_2000; purge binary logs before now(); drop database shop'"),
		},
	}
}

func rabbitmq() program {
	url := "-u amqp://guest:guest@$POD:5672 "
	return program{
		name: "rabbitmq", packages: []string{"rabbitmq-server"}, uid: 999, limit: 90 * time.Second,
		prepare: "echo 'rabbitmq:x:999:999::/var/lib/rabbitmq:/bin/sh' >>/etc/passwd; echo 'rabbitmq:x:999:' >>/etc/group; mkdir -p /var/lib/rabbitmq /var/log/rabbitmq; chown -R 999:999 /var/lib/rabbitmq /var/log/rabbitmq /etc/rabbitmq",
		files:   map[string]string{"/etc/rabbitmq/rabbitmq.conf": "loopback_users = none\nlisteners.tcp.default = 5672\nlog.console = true\n"},
		env:     []string{"HOME=/var/lib/rabbitmq", "LANG=C.UTF-8", "RABBITMQ_NODENAME=rabbit@localhost"}, args: []string{"/usr/lib/rabbitmq/bin/rabbitmq-server"}, volumes: []string{"/var/lib/rabbitmq"}, ready: "amqp-declare-queue " + url + "-q ready",
		train:    []step{client("amqp-declare-queue " + url + "-d -q jobs$RUN; for i in $(seq 20); do amqp-publish " + url + "-r jobs$RUN -b message-$i -p; done; for i in $(seq 10); do amqp-get " + url + "-q jobs$RUN; done; amqp-delete-queue " + url + "-q jobs$RUN; amqp-get " + url + "-q missing || true"), wait(3 * second), restart(unix.SIGTERM)},
		evaluate: []step{client("for q in a b c d; do amqp-declare-queue " + url + "-d -q work-$q; for i in $(seq 60); do head -c 20000 /dev/zero | amqp-publish " + url + "-r work-$q -p; done; done; for i in $(seq 40); do amqp-get " + url + "-q work-a >/dev/null; done; amqp-publish -u amqp://wrong:wrong@$POD:5672 -r x -b y || true"), wait(3 * second), replica(), client("amqp-declare-queue -u amqp://guest:guest@$LAST:5672 -d -q other"), restart(unix.SIGTERM), client("amqp-get " + url + "-q work-b >/dev/null; amqp-delete-queue " + url + "-q work-c"), restart(unix.SIGKILL), client("amqp-get " + url + "-q work-d >/dev/null")},
	}
}

func mosquitto() program {
	return program{
		name: "mosquitto", packages: []string{"mosquitto"}, uid: 1883,
		prepare: "echo 'mosquitto:x:1883:1883::/mosquitto:/bin/sh' >>/etc/passwd; echo 'mosquitto:x:1883:' >>/etc/group; mkdir -p /mosquitto/data /mosquitto/log; chown -R 1883:1883 /mosquitto",
		files:   map[string]string{"/mosquitto/config/mosquitto.conf": "listener 1883\nallow_anonymous true\npersistence true\npersistence_location /mosquitto/data/\nautosave_interval 2\nlog_dest file /mosquitto/log/mosquitto.log\n"},
		args:    []string{"mosquitto", "-c", "/mosquitto/config/mosquitto.conf"}, volumes: []string{"/mosquitto/data", "/mosquitto/log"}, ready: "mosquitto_pub -h $POD -t ready -m 1",
		train:    []step{client("mosquitto_pub -h $POD -t a/b$RUN -m hello -q 1 -r; timeout 3 mosquitto_sub -h $POD -t a/b$RUN -C 1"), wait(3 * second), aside("mv $V1/mosquitto.log $V1/mosquitto.log.1"), send(unix.SIGHUP), wait(second), send(unix.SIGUSR1), wait(second), client("mosquitto_pub -h $POD -t x -m y")},
		evaluate: []step{client("for i in $(seq 1 60); do mosquitto_pub -h $POD -t sensors/$i/value -m $i -q 2 -r & done; wait; timeout 5 mosquitto_sub -h $POD -t 'sensors/#' -C 30 >/dev/null; printf 'nonsense' | nc -N $POD 1883"), wait(3 * second), aside("mv $V1/mosquitto.log $V1/mosquitto.log.1"), send(unix.SIGHUP), wait(second), replica(), client("mosquitto_pub -h $LAST -t here -m there"), restart(unix.SIGTERM), client("timeout 5 mosquitto_sub -h $POD -t 'sensors/#' -C 30 >/dev/null"), restart(unix.SIGKILL), send(unix.SIGUSR1), wait(3 * second), client("mosquitto_pub -h $POD -t last -m 1")},
	}
}
