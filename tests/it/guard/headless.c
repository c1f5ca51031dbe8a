/* A process that runs on without its first thread: the kernel shows it as a zombie, and nothing that it does shows that it is none.
   Ignores what can be ignored, in a session of its own; goes by itself after two minutes. */

#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *run_on(void *nothing)
{
	(void)nothing;
	sleep(120);
	_exit(0);
}

int main(void)
{
	pthread_t thread;

	setsid();
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	if (pthread_create(&thread, NULL, run_on, NULL) != 0)
		return 1;
	/* The first thread's end, not the process's. */
	syscall(SYS_exit, 0);
}
