// A VMM with nothing in it, in the process that measures: what the figures about KVM are compared with. Functions that
// can fail return a negative errno, or tell so by NULL or a negative time.
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

// The ports of the guests' driver: see guest.ts and timedGuest.ts.
enum { ROUNDS_PORT = 0x80, LOOP_PORT = 0x84, START_PORT = 0x88, STOP_PORT = 0x89, SAMPLE_PORT = 0xe9 };

enum { CPUID_ENTRIES = 256, IDENTITY_MAP = 0xfffbc000, TSS = 0xfffbd000 };

struct machine {
  int vm, vcpu;
  uint8_t *ram;
  size_t ram_bytes;
  struct kvm_run *run;
};

static int kvm = -1, run_bytes;
static struct {
  struct kvm_cpuid2 head;
  struct kvm_cpuid_entry2 entries[CPUID_ENTRIES];
} cpuid;

static double nanos(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

// Of the calling thread's own processor time, guest and kernel included; not what other programs take.
double thread_nanos(void) { return nanos(CLOCK_THREAD_CPUTIME_ID); }

static double wall_nanos(void) { return nanos(CLOCK_MONOTONIC); }

int system_open(const char *device) {
  if (kvm < 0) kvm = open(device, O_RDWR | O_CLOEXEC);
  if (kvm < 0) return -errno;
  run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  cpuid.head.nent = CPUID_ENTRIES;
  return run_bytes < 0 || ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) < 0 ? -errno : 0;
}

static int give_memory(const struct machine *m) {
  struct kvm_userspace_memory_region region = {.memory_size = m->ram_bytes, .userspace_addr = (uintptr_t)m->ram};
  return ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static void destroy(struct machine *m) {
  if (m->run != MAP_FAILED) munmap(m->run, (size_t)run_bytes);
  if (m->vcpu >= 0) close(m->vcpu);
  if (m->vm >= 0) close(m->vm);
  if (m->ram != MAP_FAILED) munmap(m->ram, m->ram_bytes);
}

// The same steps as the layer's: interrupt controllers, one vCPU with its CPUID, RAM from guest address 0.
static int create(struct machine *m, size_t ram_bytes) {
  uint64_t identity_map = IDENTITY_MAP;
  *m = (struct machine){.vcpu = -1, .ram_bytes = ram_bytes, .run = MAP_FAILED};
  m->ram = mmap(NULL, ram_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  m->vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (m->ram == MAP_FAILED || m->vm < 0) return -1;
  ioctl(m->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
  ioctl(m->vm, KVM_SET_TSS_ADDR, TSS);
  if (ioctl(m->vm, KVM_CREATE_IRQCHIP, 0) < 0) return -1;
  m->vcpu = ioctl(m->vm, KVM_CREATE_VCPU, 0);
  if (m->vcpu < 0) return -1;
  m->run = mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, 0);
  if (m->run == MAP_FAILED || ioctl(m->vcpu, KVM_SET_CPUID2, &cpuid) < 0) return -1;
  return give_memory(m);
}

static int start_flat32(const struct machine *m, uint32_t entry) {
  struct kvm_sregs special;
  if (ioctl(m->vcpu, KVM_GET_SREGS, &special) < 0) return -1;
  struct kvm_segment code = {.limit = ~0u, .selector = 16, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
  struct kvm_segment data = code;
  data.type = 3;
  data.selector = 24;
  special.cs = code;
  special.ds = special.es = special.fs = special.gs = special.ss = data;
  special.cr0 = 0x31;
  struct kvm_regs general = {.rip = entry, .rflags = 2};
  if (ioctl(m->vcpu, KVM_SET_SREGS, &special) < 0) return -1;
  return ioctl(m->vcpu, KVM_SET_REGS, &general);
}

struct machine *machine_open(const uint8_t *image, uint32_t bytes, uint32_t address, uint32_t entry, uint32_t ram_bytes) {
  struct machine *m = malloc(sizeof *m);
  if (create(m, ram_bytes) < 0 || start_flat32(m, entry) < 0) {
    int problem = errno;
    destroy(m);
    free(m);
    errno = problem;
    return NULL;
  }
  memcpy(m->ram + address, image, bytes);
  return m;
}

void machine_close(struct machine *m) {
  destroy(m);
  free(m);
}

// From now on a byte written to the port is counted by the kernel and does not leave it.
int machine_doorbell(struct machine *m, uint16_t port) {
  struct kvm_ioeventfd bell = {.addr = port, .len = 1, .flags = KVM_IOEVENTFD_FLAG_PIO};
  bell.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (bell.fd < 0) return -errno;
  int result = ioctl(m->vm, KVM_IOEVENTFD, &bell) < 0 ? -errno : 0;
  // The kernel keeps it.
  close(bell.fd);
  return result;
}

static int enter(const struct machine *m) {
  int result;
  do result = ioctl(m->vcpu, KVM_RUN, 0);
  while (result < 0 && (errno == EINTR || errno == EAGAIN));
  return result;
}

// Thread time of `rounds` rounds of the loop at `loop`; its accesses are answered by what was written last.
double machine_run(struct machine *m, uint32_t loop, uint32_t rounds) {
  struct kvm_run *run = m->run;
  double began = 0;
  uint32_t value = 0;
  while (enter(m) >= 0) {
    if (run->exit_reason == KVM_EXIT_MMIO) {
      if (run->mmio.is_write) memcpy(&value, run->mmio.data, run->mmio.len);
      else memcpy(run->mmio.data, &value, run->mmio.len);
      continue;
    }
    if (run->exit_reason != KVM_EXIT_IO) return -1;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    switch (run->io.port) {
      case ROUNDS_PORT: memcpy(data, &rounds, 4); break;
      case LOOP_PORT: memcpy(data, &loop, 4); break;
      case START_PORT: began = thread_nanos(); break;
      case STOP_PORT: return thread_nanos() - began;
      default:
        if (run->io.direction == KVM_EXIT_IO_OUT) memcpy(&value, data, run->io.size);
        else memcpy(data, &value, run->io.size);
    }
  }
  return -1;
}

// Runs the guest that times itself until it told `bytes` of its samples.
int machine_timed(struct machine *m, uint8_t *told, uint32_t bytes) {
  struct kvm_run *run = m->run;
  while (bytes > 0) {
    if (enter(m) < 0) return -errno;
    if (run->exit_reason != KVM_EXIT_IO) return -EIO;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    if (run->io.direction == KVM_EXIT_IO_IN) *data = SAMPLE_PORT;
    else *told++ = *data, bytes--;
  }
  return 0;
}

// Time on the wall, for the kernel waits when a VM goes, of `count` VMs made and unmade.
double machine_lives(uint32_t count, uint32_t ram_bytes) {
  double began = wall_nanos();
  for (uint32_t i = 0; i < count; i++) {
    struct machine m;
    int result = create(&m, ram_bytes);
    destroy(&m);
    if (result < 0) return -1;
  }
  return wall_nanos() - began;
}
