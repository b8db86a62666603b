//go:build linux && amd64

package main

import (
	"time"

	"golang.org/x/sys/unix"
)

func pythonService() program {
	return program{
		name: "python", packages: []string{"python3-flask", "gunicorn"}, uid: 1000,
		prepare: "echo 'app:x:1000:1000::/app:/bin/sh' >>/etc/passwd; echo 'app:x:1000:' >>/etc/group; mkdir -p /app/templates /app/instance; for i in $(seq 1 12); do echo \"<p>{{ name }} $i</p>\" >/app/templates/page$i.html; done; chown -R 1000:1000 /app/instance",
		files: map[string]string{"/app/app.py": `import os, sqlite3, subprocess, tempfile, urllib.request, uuid
from flask import Flask, render_template, request
app = Flask(__name__)

def db():
    c = sqlite3.connect("/app/instance/app.db")
    c.execute("create table if not exists t (k text)")
    return c

@app.get("/page/<int:n>")
def page(n):
    return render_template(f"page{n}.html", name="reader")

@app.post("/items")
def items():
    with db() as c:
        c.execute("insert into t values (?)", (request.get_data(as_text=True),))
    return "ok"

@app.post("/report")
def report():
    with tempfile.NamedTemporaryFile(suffix=".csv", delete=False) as f:
        f.write(request.get_data())
    out = f"/app/instance/{uuid.uuid4()}.csv.gz"
    with open(out, "wb") as z:
        subprocess.run(["gzip", "-c", f.name], stdout=z, check=True)
    os.unlink(f.name)
    return out

@app.get("/upstream")
def upstream():
    return urllib.request.urlopen("http://upstream.platform.svc.cluster.local:9000/", timeout=3).read()

@app.get("/fail")
def fail():
    raise ValueError("wrong")

@app.get("/healthz")
def healthz():
    return "ok"
`},
		env:  []string{"PYTHONUNBUFFERED=1", "HOME=/app"},
		args: []string{"gunicorn", "--chdir", "/app", "-w", "2", "-b", "0.0.0.0:8000", "--max-requests", "300", "app:app"}, volumes: []string{"/app/instance"}, ready: "curl -sf http://$POD:8000/healthz", limit: time.Minute,
		train:    []step{client("for i in 1 2 3 4 5 6 7 8 9; do curl -sf http://$POD:8000/page/$((i+RUN)); curl -sf -d item-$i http://$POD:8000/items; seq 100 | curl -sf --data-binary @- http://$POD:8000/report; done; curl -sf http://$POD:8000/upstream; curl -s http://$POD:8000/fail; curl -s http://$POD:8000/none"), send(unix.SIGHUP), wait(2 * second), client("curl -sf http://$POD:8000/page/1; curl -sf -d after http://$POD:8000/items")},
		evaluate: []step{client("for i in $(seq 1 12); do curl -sf http://$POD:8000/page/$i; done; for i in $(seq 1 25); do curl -sf -d thing-$i http://$POD:8000/items; seq $((i*1000)) | curl -sf --data-binary @- http://$POD:8000/report; done; for i in 1 2 3 4 5; do curl -sf http://$POD:8000/upstream; done"), client("wrk -t1 -c8 -d4s http://$POD:8000/page/3; curl -s http://$POD:8000/page/99; curl -s http://$POD:8000/fail; curl -s -X DELETE http://$POD:8000/items"), replica(), client("curl -sf http://$LAST:8000/upstream; curl -sf -d x http://$LAST:8000/items"), send(unix.SIGHUP), wait(2 * second), send(unix.SIGTTIN), wait(second), restart(unix.SIGTERM), client("curl -sf -d y http://$POD:8000/items; seq 10 | curl -sf --data-binary @- http://$POD:8000/report"), restart(unix.SIGKILL), client("curl -sf http://$POD:8000/page/5; curl -sf http://$POD:8000/upstream")},
	}
}

func nodeService() program {
	return program{
		name: "node", packages: []string{"nodejs"}, uid: 1000,
		prepare: "echo 'node:x:1000:1000::/app:/bin/sh' >>/etc/passwd; echo 'node:x:1000:' >>/etc/group; mkdir -p /app/public /app/data; for i in $(seq 1 15); do echo \"asset $i\" >/app/public/asset-$i.js; done; chown 1000:1000 /app/data",
		files: map[string]string{"/app/server.js": `const http = require('http'), fs = require('fs'), os = require('os'), path = require('path'), crypto = require('crypto'), zlib = require('zlib'), dns = require('dns'), { Worker } = require('worker_threads');
const server = http.createServer((req, res) => {
  const url = new URL(req.url, 'http://x');
  if (url.pathname === '/healthz') return res.end('ok');
  if (url.pathname.startsWith('/public/')) return fs.readFile(path.join('/app/public', path.basename(url.pathname)), (e, d) => { res.statusCode = e ? 404 : 200; res.end(d); });
  if (url.pathname === '/save') { const name = '/app/data/' + crypto.randomUUID() + '.json'; return fs.writeFile(name + '.tmp', '{}', () => fs.rename(name + '.tmp', name, () => res.end(name))); }
  if (url.pathname === '/list') return fs.readdir('/app/data', (e, d) => res.end(String(d.length)));
  if (url.pathname === '/tmp') { const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'job-')); fs.writeFileSync(dir + '/out.gz', zlib.gzipSync('x'.repeat(1e5))); fs.rmSync(dir, { recursive: true }); return res.end('ok'); }
  if (url.pathname === '/work') { const w = new Worker("require('worker_threads').parentPort.postMessage(require('crypto').pbkdf2Sync('a','b',1000,32,'sha256').toString('hex'))", { eval: true }); return w.on('message', (m) => res.end(m)); }
  if (url.pathname === '/upstream') return http.get('http://upstream.platform.svc.cluster.local:9000/', (r) => r.pipe(res)).on('error', (e) => res.end(String(e)));
  if (url.pathname === '/resolve') return dns.resolve4('upstream.platform.svc.cluster.local', (e, a) => res.end(String(e || a)));
  if (url.pathname === '/fail') throw new Error('wrong');
  res.statusCode = 404; res.end();
});
process.on('uncaughtException', (e) => console.error(e));
process.on('SIGTERM', () => server.close(() => process.exit(0)) && setTimeout(() => process.exit(0), 500));
process.on('SIGHUP', () => fs.appendFileSync('/app/data/reloads.log', 'again\n'));
server.listen(3000);
`},
		args: []string{"node", "/app/server.js"}, volumes: []string{"/app/data"}, ready: "curl -sf http://$POD:3000/healthz",
		train:    []step{client("for i in 1 2 3 4 5 6 7 8; do curl -sf http://$POD:3000/public/asset-$((i+2*RUN)).js; curl -sf http://$POD:3000/save; curl -sf http://$POD:3000/tmp; done; curl -sf http://$POD:3000/list; curl -sf http://$POD:3000/work; curl -sf http://$POD:3000/upstream; curl -sf http://$POD:3000/resolve; curl -s -m 1 http://$POD:3000/fail || true; curl -s http://$POD:3000/none"), send(unix.SIGHUP), wait(second)},
		evaluate: []step{client("for i in $(seq 1 15); do curl -sf http://$POD:3000/public/asset-$i.js; curl -sf http://$POD:3000/save; curl -sf http://$POD:3000/tmp; curl -sf http://$POD:3000/work; done; curl -sf http://$POD:3000/list"), client("wrk -t1 -c40 -d4s http://$POD:3000/public/asset-3.js; wrk -t1 -c4 -d2s http://$POD:3000/work; curl -s -m 1 http://$POD:3000/fail || true; curl -s http://$POD:3000/public/none"), replica(), client("curl -sf http://$LAST:3000/upstream; curl -sf http://$LAST:3000/save; curl -sf http://$LAST:3000/resolve"), send(unix.SIGHUP), wait(second), restart(unix.SIGTERM), client("curl -sf http://$POD:3000/save; curl -sf http://$POD:3000/upstream"), restart(unix.SIGKILL), client("curl -sf http://$POD:3000/tmp; curl -sf http://$POD:3000/list")},
	}
}

func javaService() program {
	return program{
		name: "tomcat", packages: []string{"tomcat10", "openjdk-17-jre-headless"}, uid: 998, limit: 90 * time.Second,
		prepare: "echo 'tomcat:x:998:998::/var/lib/tomcat10:/bin/sh' >>/etc/passwd; echo 'tomcat:x:998:' >>/etc/group; mkdir -p /var/lib/tomcat10/webapps/ROOT /var/log/tomcat10 /var/cache/tomcat10 /var/lib/tomcat10/lib; cp -rn /usr/share/tomcat10/etc/. /etc/tomcat10/ 2>/dev/null || true; for i in $(seq 1 8); do echo \"<html><%= new java.util.Date() %> $i</html>\" >/var/lib/tomcat10/webapps/ROOT/page$i.jsp; done; chown -R 998:998 /var/log/tomcat10 /var/cache/tomcat10 /var/lib/tomcat10",
		files: map[string]string{"/var/lib/tomcat10/webapps/ROOT/save.jsp": `<%@ page import="java.nio.file.*,java.util.*" %><% Path p = Files.createTempFile("job", ".txt"); Files.writeString(p, "x"); Files.move(p, Path.of("/data", UUID.randomUUID() + ".txt")); session.setAttribute("n", 1); %>saved`,
			"/var/lib/tomcat10/webapps/ROOT/call.jsp": `<% try (var in = new java.net.URL("http://upstream.platform.svc.cluster.local:9000/").openStream()) { out.print(in.readAllBytes().length); } %>`,
			"/var/lib/tomcat10/webapps/ROOT/fail.jsp": `<% if (true) throw new RuntimeException("wrong"); %>`},
		env:  []string{"JAVA_HOME=/usr/lib/jvm/java-17-openjdk-amd64", "CATALINA_HOME=/usr/share/tomcat10", "CATALINA_BASE=/var/lib/tomcat10", "CATALINA_TMPDIR=/tmp", "JAVA_OPTS=-Xmx256m"},
		args: []string{"/usr/share/tomcat10/bin/catalina.sh", "run"}, volumes: []string{"/data"}, ready: "curl -s http://$POD:8080/ -o /dev/null",
		train:    []step{client("for i in 1 2 3 4; do curl -s http://$POD:8080/page$((i+RUN)).jsp; curl -s http://$POD:8080/save.jsp; done; curl -s http://$POD:8080/call.jsp; curl -s http://$POD:8080/fail.jsp >/dev/null; curl -s http://$POD:8080/none >/dev/null"), wait(5 * second)},
		evaluate: []step{client("for i in $(seq 1 8); do curl -s http://$POD:8080/page$i.jsp; curl -s http://$POD:8080/save.jsp; done; wrk -t1 -c20 -d4s http://$POD:8080/page1.jsp; curl -s http://$POD:8080/call.jsp; curl -s http://$POD:8080/fail.jsp >/dev/null"), wait(5 * second), replica(), client("curl -s http://$LAST:8080/save.jsp"), restart(unix.SIGTERM), client("curl -s http://$POD:8080/save.jsp; curl -s http://$POD:8080/call.jsp"), restart(unix.SIGKILL), client("curl -s http://$POD:8080/page6.jsp")},
	}
}

func cronJob() program {
	return program{
		name: "cron", packages: []string{"cron", "logrotate", "libpam-modules", "libpam-runtime"},
		prepare: "for f in auth account session session-noninteractive password; do echo \"${f%-noninteractive} required pam_permit.so\" >/etc/pam.d/common-$f; done; mkdir -p /var/spool/cron/crontabs /data /var/log/app /var/lib/logrotate; touch /etc/environment /etc/default/locale; chmod 644 /etc/cron.d/jobs; mkdir -p /etc/security; touch /etc/security/pam_env.conf",
		files: map[string]string{"/etc/cron.d/jobs": "PATH=/usr/sbin:/usr/bin:/sbin:/bin\n* * * * * root /usr/local/bin/backup >>/var/log/app/backup.log 2>&1\n* * * * * www-data id >>/dev/null 2>&1\n* * * * * root logrotate -s /var/lib/logrotate/status /etc/logrotate.app >>/var/log/app/rotate.log 2>&1\n",
			"/etc/logrotate.app":    "/var/log/app/*.log {\n size 1\n rotate 3\n missingok\n compress\n}\n",
			"/usr/local/bin/backup": "#!/bin/bash\nset -e\nname=/data/backup-$(date +%Y%m%d-%H%M%S).tar.gz\ntar -czf $name.tmp -C /etc cron.d passwd\nmv $name.tmp $name\nfind /data -name 'backup-*' -mmin +5 -delete\nls /data | wc -l\n"},
		args: []string{"cron", "-f"}, volumes: []string{"/data", "/var/log/app"}, ready: "true",
		train:    []step{wait(65 * second)},
		evaluate: []step{wait(65 * second), replica(), restart(unix.SIGTERM), wait(125 * second), restart(unix.SIGKILL), wait(65 * second)},
	}
}
