//go:build ignore
/*
 * The program that the benchmark's containers run: it makes system calls and
 * says how long they took. It needs no C library, so that an exec of it is the
 * cheapest that there is, and 200 of them are small.
 *
 * It reads lines from stdin, a word and two numbers, and answers each with one:
 *   syscall N B   getpid                    \  B batches of N; answers with the
 *   open N B      open and close a file      | processor time of each, ns
 *   connect N B   connect and accept, both   |
 *                 closed again               |
 *   exec N B      exec itself               /
 *   flood R MS    R getpid a second for MS milliseconds, evenly, and every rare
 *                 fact once meanwhile; answers with what it made
 *   known R MS    the same of known facts: getpid, open, sendto in turns
 */
typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;

#define FILES 30
#define PORTS 10

static long call(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;

	__asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return n;
}

enum { READ = 0, WRITE = 1, OPEN = 2, CLOSE = 3, GETPID = 39, SOCKET = 41, CONNECT = 42, ACCEPT = 43, SENDTO = 44,
       BIND = 49, LISTEN = 50, SETSOCKOPT = 54, EXECVE = 59, EXIT = 60, CLOCK_GETTIME = 228, CLOCK_NANOSLEEP = 230 };

/* What nothing else here calls; main.go has their names. */
static const short rare_calls[] = {24, 99, 100, 102, 104, 107, 108, 110, 111, 186};
#define CALLS (sizeof(rare_calls) / sizeof(*rare_calls))
#define RARE (FILES + PORTS + CALLS)

struct address {
	u16 family, port;
	u32 ip;
	u64 zero;
};

static u64 clock(int which)
{
	u64 t[2];

	call(CLOCK_GETTIME, which, (long)t, 0, 0, 0, 0);
	return t[0] * 1000000000 + t[1];
}

/* Time that the process ran, which exec keeps: what else runs does not count. */
static u64 used(void)
{
	return clock(2);
}

static void wait_until(u64 at)
{
	u64 t[2] = {at / 1000000000, at % 1000000000};

	call(CLOCK_NANOSLEEP, 1, 1, (long)t, 0, 0, 0);
}

static u64 parse(const char **s)
{
	u64 n = 0;

	while (**s == ' ')
		++*s;
	for (; **s >= '0' && **s <= '9'; ++*s)
		n = n * 10 + **s - '0';
	return n;
}

static char *format(char *to, u64 n, char end)
{
	char digits[24];
	int i = 0;

	do
		digits[i++] = '0' + n % 10;
	while (n /= 10);
	while (i)
		*to++ = digits[--i];
	*to++ = end;
	return to;
}

static void die(const char *why)
{
	int n = 0;

	while (why[n])
		n++;
	call(WRITE, 2, (long)why, n, 0, 0, 0);
	call(EXIT, 1, 0, 0, 0, 0, 0);
}

static u16 swap(u16 n)
{
	return n << 8 | n >> 8;
}

static void set_address(struct address *a, int port)
{
	a->family = 2;
	a->port = swap(port);
	a->ip = 0x0100007f;
	a->zero = 0;
}

static int listener(void)
{
	struct address a;
	int fd = call(SOCKET, 2, 1, 0, 0, 0, 0), one = 1;

	set_address(&a, 7000);
	call(SETSOCKOPT, fd, 1, 2, (long)&one, 4, 0);
	if (call(BIND, fd, (long)&a, 16, 0, 0, 0) || call(LISTEN, fd, 16, 0, 0, 0, 0))
		die("listen\n");
	return fd;
}

static void open_close(const char *name, int flags)
{
	int fd = call(OPEN, (long)name, flags, 0644, 0, 0, 0);

	if (fd < 0)
		die("open\n");
	call(CLOSE, fd, 0, 0, 0, 0, 0);
}

static void connect_accept(int server)
{
	struct address a;
	struct { int on, seconds; } reset = {1, 0}; /* leave nothing in TIME_WAIT */
	int client = call(SOCKET, 2, 1, 0, 0, 0, 0), peer;

	set_address(&a, 7000);
	if (call(CONNECT, client, (long)&a, 16, 0, 0, 0))
		die("connect\n");
	peer = call(ACCEPT, server, 0, 0, 0, 0, 0);
	if (peer < 0)
		die("accept\n");
	call(SETSOCKOPT, client, 1, 13, (long)&reset, 8, 0);
	call(CLOSE, client, 0, 0, 0, 0, 0);
	call(CLOSE, peer, 0, 0, 0, 0, 0);
}

static void batch(char what, u64 n)
{
	int fd = what == 'c' ? listener() : -1;

	for (u64 i = 0; i < n; i++) {
		if (what == 's')
			call(GETPID, 0, 0, 0, 0, 0, 0);
		else if (what == 'o')
			open_close("/etc/known", 0);
		else
			connect_accept(fd);
	}
	if (fd >= 0)
		call(CLOSE, fd, 0, 0, 0, 0, 0);
}

/* Replaces itself; goes on in main with what is left to do in its arguments. */
static void exec(u64 left, u64 start)
{
	char a[24], b[24], *argv[] = {"load", a, b, 0}, *envp[] = {0};

	format(a, left, 0);
	format(b, start, 0);
	call(EXECVE, (long)"/load", (long)argv, (long)envp, 0, 0, 0);
	die("exec\n");
}

static void send(int socket, int port)
{
	struct address a;

	set_address(&a, port);
	call(SENDTO, socket, (long)"x", 1, 0, (long)&a, 16);
}

static void rare(u32 i, int socket)
{
	char name[] = "/rare/00";

	if (i < FILES) {
		name[6] = '0' + i / 10;
		name[7] = '0' + i % 10;
		open_close(name, 0102); /* O_CREAT|O_RDWR */
	} else if (i < FILES + PORTS) {
		send(socket, 20000 + i - FILES);
	} else {
		long buffer[32]; /* what times and sysinfo write */

		call(rare_calls[i - FILES - PORTS], (long)buffer, 0, 0, 0, 0, 0);
	}
}

/* Twenty milliseconds' worth at a time; rare facts are spread over the whole time. */
static u64 paced(int known, u64 rate, u64 ms)
{
	u64 steps = ms / 20, each = rate / 50, made = 0, start = clock(1);
	int socket = call(SOCKET, 2, 2, 0, 0, 0, 0);
	u32 planted = 0;

	for (u64 step = 0; step < steps; step++) {
		for (u64 i = 0; i < each; i++, made++) {
			if (!known || made % 3 == 0)
				call(GETPID, 0, 0, 0, 0, 0, 0);
			else if (made % 3 == 1)
				open_close("/etc/known", 0);
			else
				send(socket, 9);
		}
		while (!known && planted < RARE * (step + 1) / steps)
			rare(planted++, socket);
		wait_until(start + (step + 1) * 20000000);
	}
	call(CLOSE, socket, 0, 0, 0, 0, 0);
	return made;
}

static int line(char *to, int size)
{
	int n = 0;

	while (n < size - 1) {
		if (call(READ, 0, (long)&to[n], 1, 0, 0, 0) != 1)
			call(EXIT, 0, 0, 0, 0, 0, 0);
		if (to[n++] == '\n')
			break;
	}
	to[n] = 0;
	return n;
}

static void serve(void)
{
	static char in[64], out[1024];
	const char *s;
	char *end;
	u64 n, m;

	for (;;) {
		line(in, sizeof(in));
		s = in;
		while (*s > ' ')
			s++;
		n = parse(&s);
		m = parse(&s);
		end = out;
		if (in[0] == 'e')
			exec(n, used());
		if (in[0] == 'f' || in[0] == 'k')
			end = format(end, paced(in[0] == 'k', n, m), ' ');
		else
			for (u64 i = 0; i < m && i < 40; i++) {
				u64 start = used();

				batch(in[0], n);
				end = format(end, used() - start, ' ');
			}
		end[-1] = '\n';
		call(WRITE, 1, (long)out, end - out, 0, 0, 0);
	}
}

__attribute__((used)) void start(u64 *stack)
{
	const char *s;
	char out[24], *end;
	u64 left, began;

	if (stack[0] == 3) { /* in the middle of an exec batch */
		s = (const char *)stack[2];
		left = parse(&s);
		s = (const char *)stack[3];
		began = parse(&s);
		if (left > 1)
			exec(left - 1, began);
		end = format(out, used() - began, '\n');
		call(WRITE, 1, (long)out, end - out, 0, 0, 0);
	}
	serve();
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
