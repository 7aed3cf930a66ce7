/*
 * ptrace(2) for User-Mode Linux, preloaded into linux.uml. It adds two things.
 *
 * 1. A process of the guest dies with the kernel. linux.uml traces a host process for each process of the guest. When
 *    linux.uml is killed, such a process would go on without a tracer, and its system calls would reach the host. So
 *    PTRACE_O_EXITKILL is added to the options that linux.uml sets.
 *
 * 2. Processors whose register state is larger than linux.uml knows. Linux 6.1 keeps 2,696 bytes of a process's
 *    extended state (arch/x86/um/user-offsets.c, HOST_FP_SIZE). With AMX the state has 11,008 bytes, and
 *    PTRACE_SETREGSET takes the whole or nothing (arch/x86/kernel/fpu/regset.c, xstateregs_set: EFAULT). This function
 *    reads the whole and hands the first part on; it writes the whole back, with the rest in its initial state. No
 *    process of the guest can use AMX, for a program must ask the kernel for it first. A kernel that knows the size is
 *    left alone.
 *
 * Freestanding, so that any C compiler makes it. linux.uml traces from one thread, so nothing is locked.
 */
typedef unsigned long size_t;
struct iovec {
	void *base;
	size_t length;
};
extern void *dlsym(void *handle, const char *name);
extern void *memcpy(void *to, const void *from, size_t length);
extern void *memset(void *at, int byte, size_t length);

enum { OLDSETOPTIONS = 21, SETOPTIONS = 0x4200, EXITKILL = 1 << 20 };
enum { GETREGSET = 0x4204, SETREGSET = 0x4205, NT_X86_XSTATE = 0x202, XSTATE_BV = 512 };
#define RTLD_NEXT ((void *)-1L)
/* XTILECFG and XTILEDATA, state components 17 and 18. */
#define AMX (3UL << 17)

static unsigned char whole[1 << 16];
static size_t size;
static long (*next)(long, long, void *, void *);

static long get(long pid, void *kind, struct iovec *wanted)
{
	struct iovec all = { whole, sizeof whole };
	long result = next(GETREGSET, pid, kind, &all);

	if (result != 0)
		return result;
	size = all.length;
	if (wanted->length > size)
		wanted->length = size;
	memcpy(wanted->base, whole, wanted->length);
	return 0;
}

static long set(long pid, void *kind, struct iovec *given)
{
	struct iovec all = { whole, size };

	memset(whole + given->length, 0, size - given->length);
	memcpy(whole, given->base, given->length);
	*(unsigned long *)(whole + XSTATE_BV) &= ~AMX;
	return next(SETREGSET, pid, kind, &all);
}

long ptrace(long request, long pid, void *address, void *data)
{
	request &= 0xffffffffL;
	if (!next)
		next = (long (*)(long, long, void *, void *))dlsym(RTLD_NEXT, "ptrace");
	if (request == OLDSETOPTIONS || request == SETOPTIONS)
		data = (void *)((long)data | EXITKILL);
	if (address == (void *)NT_X86_XSTATE) {
		if (request == GETREGSET)
			return get(pid, address, data);
		if (request == SETREGSET && ((struct iovec *)data)->length < size)
			return set(pid, address, data);
	}
	return next(request, pid, address, data);
}
