// A client of /dev/acrn_hsm in C: `scenarios NAME` runs one scenario. Each ioctl becomes a JSON line with its result
// and errno, so that the test outside can compare them with what the hypervisor saw.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/acrn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define MIB (1 << 20)
#define REQUESTS 7
#define NOWHERE ((void *)0x10)
#define STEP(name, expression)                                                     \
  ({                                                                               \
    errno = 0;                                                                     \
    long result_ = (expression);                                                   \
    printf("{\"step\":\"%s\",\"result\":%ld,\"errno\":%d}\n", name, result_, errno); \
    result_;                                                                       \
  })
#define IOCTL(vm, request, argument) STEP(#request, ioctl((vm)->fd, ACRN_IOCTL_##request, argument))

extern const unsigned char guest16[], guest16_end[];

struct vm {
  int fd;
  struct acrn_vm_creation creation;
  struct acrn_io_request *slots;
  char written[64];
  int count;
};

static double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void *pages(size_t bytes) {
  return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static long create(struct vm *vm) {
  memset(&vm->creation, 0, sizeof vm->creation);
  vm->slots = pages(PAGE);
  vm->creation.ioreq_buf = (uintptr_t)vm->slots;
  vm->creation.cpu_affinity = 1;
  return IOCTL(vm, CREATE_VM, &vm->creation);
}

static void open_device(struct vm *vm) {
  memset(vm, 0, sizeof *vm);
  vm->fd = STEP("open", open("/dev/acrn_hsm", O_RDWR | O_CLOEXEC));
}

static void open_vm(struct vm *vm) {
  open_device(vm);
  create(vm);
}

static void *map_ram(struct vm *vm, uint64_t at, size_t bytes) {
  void *memory = pages(bytes);
  struct acrn_vm_memmap map = {.type = ACRN_MEMMAP_RAM,
                               .attr = ACRN_MEM_ACCESS_RWX,
                               .user_vm_pa = at,
                               .vma_base = (uintptr_t)memory,
                               .len = bytes};
  IOCTL(vm, SET_MEMSEG, &map);
  return memory;
}

static struct acrn_vcpu_regs real_mode(void) {
  struct acrn_vcpu_regs registers;
  memset(&registers, 0, sizeof registers);
  registers.vcpu_regs.cr0 = 0x30;
  registers.vcpu_regs.cs_ar = 0x9f;
  registers.vcpu_regs.cs_sel = 0xf000;
  registers.vcpu_regs.cs_limit = 0xffff;
  return registers;
}

static void set_registers(struct vm *vm) {
  struct acrn_vcpu_regs registers = real_mode();
  IOCTL(vm, SET_VCPU_REGS, &registers);
}

static void load_guest(struct vm *vm) {
  memcpy(map_ram(vm, 0, MIB), guest16, guest16_end - guest16);
  set_registers(vm);
}

static void start(struct vm *vm) {
  IOCTL(vm, CREATE_IOREQ_CLIENT, 0);
  IOCTL(vm, START_VM, 0);
}

// The request in slot 0 if it is this client's to serve. State first: the rest is only then the request's.
static struct acrn_io_request *taken(struct vm *vm) {
  struct acrn_io_request *slot = vm->slots;
  if (__atomic_load_n(&slot->processed, __ATOMIC_ACQUIRE) != ACRN_IOREQ_STATE_PROCESSING) return NULL;
  return slot->kernel_handled ? NULL : slot;
}

static int serve_taken(struct vm *vm) {
  struct acrn_ioreq_notify notify = {.vmid = vm->creation.vmid};
  struct acrn_io_request *slot = taken(vm);
  if (slot == NULL) return 0;
  if (slot->reqs.pio_request.direction == ACRN_IOREQ_DIR_READ) slot->reqs.pio_request.value = 'z';
  else vm->written[vm->count++] = slot->reqs.pio_request.value;
  return ioctl(vm->fd, ACRN_IOCTL_NOTIFY_REQUEST_FINISH, &notify) < 0 ? -1 : 1;
}

static void serve(struct vm *vm, int requests) {
  while (requests > 0) {
    int served;
    if (ioctl(vm->fd, ACRN_IOCTL_ATTACH_IOREQ_CLIENT, 0) < 0) break;
    served = serve_taken(vm);
    if (served < 0) break;
    requests -= served;
  }
}

static void await_request(struct vm *vm) {
  while (taken(vm) == NULL) ioctl(vm->fd, ACRN_IOCTL_ATTACH_IOREQ_CLIENT, 0);
}

static void tell_written(struct vm *vm) {
  printf("{\"vm\":%d,\"written\":\"%.*s\"}\n", vm->creation.vmid, vm->count, vm->written);
}

static void tell(const char *what, long value) { printf("{\"%s\":%ld}\n", what, value); }

static void finish(struct vm *vm) {
  IOCTL(vm, PAUSE_VM, 0);
  IOCTL(vm, DESTROY_IOREQ_CLIENT, 0);
  IOCTL(vm, DESTROY_VM, 0);
  STEP("close", close(vm->fd));
}

static void normal(void) {
  struct vm vm;
  open_vm(&vm);
  load_guest(&vm);
  start(&vm);
  serve(&vm, REQUESTS);
  tell_written(&vm);
  finish(&vm);
}

static void two(void) {
  struct vm vms[2];
  for (int i = 0; i < 2; i++) {
    open_vm(&vms[i]);
    load_guest(&vms[i]);
  }
  for (int i = 0; i < 2; i++) start(&vms[i]);
  for (int turn = 0; turn < REQUESTS; turn++)
    for (int i = 0; i < 2; i++) serve(&vms[i], 1);
  for (int i = 0; i < 2; i++) tell_written(&vms[i]);
  finish(&vms[0]);
  finish(&vms[1]);
}

static void reset(void) {
  struct vm vm;
  open_vm(&vm);
  load_guest(&vm);
  start(&vm);
  serve(&vm, 3);
  await_request(&vm);
  tell("held", vm.slots->processed);
  IOCTL(&vm, PAUSE_VM, 0);
  IOCTL(&vm, CLEAR_VM_IOREQ, 0);
  tell("cleared", vm.slots->processed);
  IOCTL(&vm, RESET_VM, 0);
  tell("reset", vm.slots->processed);
  set_registers(&vm);
  vm.count = 0;
  IOCTL(&vm, START_VM, 0);
  serve(&vm, REQUESTS);
  tell_written(&vm);
  finish(&vm);
}

static void on_signal(int number) { (void)number; }

struct waiter {
  struct vm *vm;
  pthread_t thread;
  volatile pid_t id;
};

static void *wait_attached(void *argument) {
  struct waiter *waiter = argument;
  waiter->id = gettid();
  STEP("waiter", ioctl(waiter->vm->fd, ACRN_IOCTL_ATTACH_IOREQ_CLIENT, 0));
  return NULL;
}

// Whether a thread sleeps in a system call that can be interrupted.
static int sleeps(pid_t thread) {
  char path[64], state = 0;
  FILE *file;
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
  file = fopen(path, "r");
  if (file == NULL) return 0;
  if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1) state = 0;
  fclose(file);
  return state == 'S';
}

static void begin_waiting(struct waiter *waiter, struct vm *vm) {
  waiter->vm = vm;
  waiter->id = 0;
  pthread_create(&waiter->thread, NULL, wait_attached, waiter);
  while (waiter->id == 0 || !sleeps(waiter->id)) sched_yield();
}

static void attach(void) {
  struct vm vm;
  struct waiter waiter;
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGUSR1, &action, NULL);
  open_vm(&vm);
  IOCTL(&vm, ATTACH_IOREQ_CLIENT, 0);
  IOCTL(&vm, CREATE_IOREQ_CLIENT, 0);
  begin_waiting(&waiter, &vm);
  pthread_kill(waiter.thread, SIGUSR1);
  pthread_join(waiter.thread, NULL);
  begin_waiting(&waiter, &vm);
  IOCTL(&vm, DESTROY_IOREQ_CLIENT, 0);
  pthread_join(waiter.thread, NULL);
  IOCTL(&vm, ATTACH_IOREQ_CLIENT, 0);
  finish(&vm);
}

// Nothing tells that nothing will happen: this is long for a driver that takes microseconds.
static void let_the_driver_work(void) { usleep(50000); }

// The client goes while a request is held, and another takes its place: the request belongs to nobody.
static void orphan(void) {
  struct vm vm;
  open_vm(&vm);
  load_guest(&vm);
  start(&vm);
  serve(&vm, 2);
  await_request(&vm);
  IOCTL(&vm, DESTROY_IOREQ_CLIENT, 0);
  tell("held", vm.slots->processed);
  IOCTL(&vm, CREATE_IOREQ_CLIENT, 0);
  let_the_driver_work();
  tell("after", vm.slots->processed);
  tell("served", serve_taken(&vm));
  serve(&vm, REQUESTS - 3);
  tell_written(&vm);
  finish(&vm);
}

static void level(void) {
  struct vm vm;
  int returns = 0;
  double begin;
  open_vm(&vm);
  load_guest(&vm);
  start(&vm);
  await_request(&vm);
  for (begin = milliseconds(); milliseconds() - begin < 100; returns++) ioctl(vm.fd, ACRN_IOCTL_ATTACH_IOREQ_CLIENT, 0);
  tell("returns", returns);
  serve(&vm, REQUESTS);
  tell_written(&vm);
  finish(&vm);
}

static void no_client(void) {
  struct vm vm;
  open_vm(&vm);
  load_guest(&vm);
  IOCTL(&vm, START_VM, 0);
  while (__atomic_load_n(&vm.slots->processed, __ATOMIC_ACQUIRE) != ACRN_IOREQ_STATE_PENDING) sched_yield();
  let_the_driver_work();
  tell("unclaimed", vm.slots->processed);
  IOCTL(&vm, CREATE_IOREQ_CLIENT, 0);
  let_the_driver_work();
  tell("after", vm.slots->processed);
  finish(&vm);
}

static void big_ram(void) {
  struct vm vm;
  open_vm(&vm);
  map_ram(&vm, 0, 300 * (size_t)MIB);
  finish(&vm);
}

static void segments(void) {
  struct vm vm;
  int i;
  open_vm(&vm);
  for (i = 0; i < 257; i++) map_ram(&vm, (uint64_t)i * PAGE, PAGE);
  finish(&vm);
}

static void create_twice(void) {
  struct vm vm;
  open_vm(&vm);
  create(&vm);
  IOCTL(&vm, PAUSE_VM, 0);
  STEP("close", close(vm.fd));
}

static void never_started(void) {
  struct vm vm;
  open_vm(&vm);
  IOCTL(&vm, DESTROY_VM, 0);
  finish(&vm);
}

// Holds a request for good: the caller kills it. The line tells that it is time to.
static void hold(void) {
  struct vm vm;
  open_vm(&vm);
  load_guest(&vm);
  start(&vm);
  serve(&vm, 2);
  await_request(&vm);
  tell("held", vm.slots->processed);
  for (;;) pause();
}

// What the guest does last, when the kernel's own I/O client has served it.
static void await_echo(struct vm *vm) {
  struct acrn_io_request *slot = vm->slots;
  while (__atomic_load_n(&slot->processed, __ATOMIC_ACQUIRE) != ACRN_IOREQ_STATE_FREE ||
         slot->reqs.pio_request.direction != ACRN_IOREQ_DIR_WRITE || slot->reqs.pio_request.value != 'z')
    sched_yield();
}

// The kernel's own I/O client takes the port, one letter signals; the default client gets the read of the other port.
static void io_event(void) {
  struct vm vm;
  uint64_t signals = 0;
  int event = eventfd(0, EFD_NONBLOCK);
  struct acrn_ioeventfd config = {.fd = event,
                                  .flags = ACRN_IOEVENTFD_FLAG_PIO | ACRN_IOEVENTFD_FLAG_DATAMATCH,
                                  .addr = 0x3f8,
                                  .len = 1,
                                  .data = 'C'};
  open_vm(&vm);
  load_guest(&vm);
  IOCTL(&vm, IOEVENTFD, &config);
  start(&vm);
  serve(&vm, 1);
  await_echo(&vm);
  if (read(event, &signals, sizeof signals) < 0) signals = 0;
  tell("signals", signals);
  tell_written(&vm);
  config.flags = ACRN_IOEVENTFD_FLAG_DEASSIGN;
  IOCTL(&vm, IOEVENTFD, &config);
  finish(&vm);
}

static void irq_event(void) {
  struct vm vm;
  uint64_t one = 1;
  int event = eventfd(0, EFD_NONBLOCK);
  struct acrn_irqfd config = {.fd = event, .msi = {.msi_addr = 0xfee00000, .msi_data = 0x31}};
  open_vm(&vm);
  IOCTL(&vm, IRQFD, &config);
  STEP("write", write(event, &one, sizeof one));
  IOCTL(&vm, IRQFD, &config);
  config.flags = ACRN_IRQFD_FLAG_DEASSIGN;
  IOCTL(&vm, IRQFD, &config);
  STEP("write", write(event, &one, sizeof one));
  finish(&vm);
}

#define BAD(vm, request) STEP(#request " of a bad address", ioctl((vm)->fd, ACRN_IOCTL_##request, NOWHERE))

static void creation_errors(void) {
  struct vm vm;
  open_device(&vm);
  STEP("before CREATE_VM", ioctl(vm.fd, ACRN_IOCTL_START_VM, 0));
  STEP("unknown before CREATE_VM", ioctl(vm.fd, _IO(ACRN_IOCTL_TYPE, 0xff), 0));
  BAD(&vm, CREATE_VM);
  vm.creation = (struct acrn_vm_creation){.reserved0 = 1};
  STEP("CREATE_VM with reserved0", ioctl(vm.fd, ACRN_IOCTL_CREATE_VM, &vm.creation));
  vm.creation = (struct acrn_vm_creation){.cpu_affinity = 1 << 20, .ioreq_buf = (uintptr_t)pages(PAGE)};
  STEP("CREATE_VM refused", ioctl(vm.fd, ACRN_IOCTL_CREATE_VM, &vm.creation));
  vm.creation = (struct acrn_vm_creation){.cpu_affinity = 1, .ioreq_buf = (uintptr_t)NOWHERE};
  STEP("CREATE_VM without a page", ioctl(vm.fd, ACRN_IOCTL_CREATE_VM, &vm.creation));
  STEP("after the refusals", ioctl(vm.fd, ACRN_IOCTL_START_VM, 0));
  create(&vm);
  finish(&vm);
}

static void state_errors(void) {
  struct vm vm;
  open_vm(&vm);
  load_guest(&vm);
  STEP("DESTROY_VM of a created VM", ioctl(vm.fd, ACRN_IOCTL_DESTROY_VM, 0));
  STEP("RESET_VM of a created VM", ioctl(vm.fd, ACRN_IOCTL_RESET_VM, 0));
  start(&vm);
  STEP("START_VM of a running VM", ioctl(vm.fd, ACRN_IOCTL_START_VM, 0));
  STEP("DESTROY_VM of a running VM", ioctl(vm.fd, ACRN_IOCTL_DESTROY_VM, 0));
  STEP("RESET_VM of a running VM", ioctl(vm.fd, ACRN_IOCTL_RESET_VM, 0));
  struct acrn_vcpu_regs registers = real_mode();
  STEP("SET_VCPU_REGS of a running VM", ioctl(vm.fd, ACRN_IOCTL_SET_VCPU_REGS, &registers));
  finish(&vm);
}

static void register_errors(struct vm *vm) {
  struct acrn_vcpu_regs registers;
  BAD(vm, SET_VCPU_REGS);
  registers = real_mode();
  registers.reserved[1] = 1;
  STEP("SET_VCPU_REGS with reserved", ioctl(vm->fd, ACRN_IOCTL_SET_VCPU_REGS, &registers));
  registers = real_mode();
  registers.vcpu_regs.reserved_32[0] = 1;
  STEP("SET_VCPU_REGS with reserved_32", ioctl(vm->fd, ACRN_IOCTL_SET_VCPU_REGS, &registers));
  registers = real_mode();
  registers.vcpu_regs.reserved_64[0] = 1;
  STEP("SET_VCPU_REGS with reserved_64", ioctl(vm->fd, ACRN_IOCTL_SET_VCPU_REGS, &registers));
  registers = real_mode();
  registers.vcpu_regs.idt.reserved[0] = 1;
  STEP("SET_VCPU_REGS with idt.reserved", ioctl(vm->fd, ACRN_IOCTL_SET_VCPU_REGS, &registers));
  registers = real_mode();
  registers.vcpu_id = 1;
  STEP("SET_VCPU_REGS of a vCPU that is not there", ioctl(vm->fd, ACRN_IOCTL_SET_VCPU_REGS, &registers));
}

static void memory_errors(struct vm *vm) {
  struct acrn_vm_memmap map = {.type = 2, .len = PAGE};
  char *half = pages(2 * PAGE);
  munmap(half + PAGE, PAGE);
  BAD(vm, SET_MEMSEG);
  BAD(vm, UNSET_MEMSEG);
  STEP("SET_MEMSEG of a foreign type", ioctl(vm->fd, ACRN_IOCTL_SET_MEMSEG, &map));
  map = (struct acrn_vm_memmap){.type = ACRN_MEMMAP_RAM, .vma_base = (uintptr_t)half, .len = PAGE - 1};
  STEP("SET_MEMSEG of less than a page", ioctl(vm->fd, ACRN_IOCTL_SET_MEMSEG, &map));
  map.vma_base = PAGE;
  map.len = PAGE;
  STEP("SET_MEMSEG of unmapped memory", ioctl(vm->fd, ACRN_IOCTL_SET_MEMSEG, &map));
  map.vma_base = (uintptr_t)half;
  map.len = 2 * PAGE;
  STEP("SET_MEMSEG of half mapped memory", ioctl(vm->fd, ACRN_IOCTL_SET_MEMSEG, &map));
  STEP("UNSET_MEMSEG of RAM", ioctl(vm->fd, ACRN_IOCTL_UNSET_MEMSEG, &map));
  map = (struct acrn_vm_memmap){.type = ACRN_MEMMAP_MMIO,
                                .attr = ACRN_MEM_ACCESS_RWX,
                                .user_vm_pa = 0xfe000000,
                                .service_vm_pa = 0x4000000,
                                .len = 100};
  STEP("SET_MEMSEG of MMIO with an odd size", ioctl(vm->fd, ACRN_IOCTL_SET_MEMSEG, &map));
  map.len = PAGE;
  STEP("SET_MEMSEG of MMIO", ioctl(vm->fd, ACRN_IOCTL_SET_MEMSEG, &map));
  STEP("UNSET_MEMSEG of MMIO", ioctl(vm->fd, ACRN_IOCTL_UNSET_MEMSEG, &map));
}

static void client_errors(struct vm *vm) {
  struct acrn_ioreq_notify notify = {.vmid = vm->creation.vmid};
  STEP("DESTROY_IOREQ_CLIENT of none", ioctl(vm->fd, ACRN_IOCTL_DESTROY_IOREQ_CLIENT, 0));
  STEP("ATTACH_IOREQ_CLIENT of none", ioctl(vm->fd, ACRN_IOCTL_ATTACH_IOREQ_CLIENT, 0));
  STEP("NOTIFY_REQUEST_FINISH of none", ioctl(vm->fd, ACRN_IOCTL_NOTIFY_REQUEST_FINISH, &notify));
  IOCTL(vm, CREATE_IOREQ_CLIENT, 0);
  STEP("second CREATE_IOREQ_CLIENT", ioctl(vm->fd, ACRN_IOCTL_CREATE_IOREQ_CLIENT, 0));
  BAD(vm, NOTIFY_REQUEST_FINISH);
  notify.reserved = 1;
  STEP("NOTIFY_REQUEST_FINISH with reserved", ioctl(vm->fd, ACRN_IOCTL_NOTIFY_REQUEST_FINISH, &notify));
  notify.reserved = 0;
  notify.vcpu = 1;
  STEP("NOTIFY_REQUEST_FINISH of a vCPU that is not there", ioctl(vm->fd, ACRN_IOCTL_NOTIFY_REQUEST_FINISH, &notify));
  notify.vcpu = 0;
  tell("free", vm->slots->processed);
  STEP("NOTIFY_REQUEST_FINISH of a free slot", ioctl(vm->fd, ACRN_IOCTL_NOTIFY_REQUEST_FINISH, &notify));
  tell("notified", vm->slots->processed);
  IOCTL(vm, CLEAR_VM_IOREQ, 0);
}

static void interrupt_errors(struct vm *vm) {
  struct acrn_msi_entry msi = {.msi_addr = 0xfee00000, .msi_data = 0x31};
  STEP("SET_IRQLINE of no line", ioctl(vm->fd, ACRN_IOCTL_SET_IRQLINE, 99));
  STEP("SET_IRQLINE", ioctl(vm->fd, ACRN_IOCTL_SET_IRQLINE, 1ul << 32 | 4));
  BAD(vm, INJECT_MSI);
  STEP("INJECT_MSI", ioctl(vm->fd, ACRN_IOCTL_INJECT_MSI, &msi));
  BAD(vm, VM_INTR_MONITOR);
  STEP("VM_INTR_MONITOR", ioctl(vm->fd, ACRN_IOCTL_VM_INTR_MONITOR, pages(PAGE)));
}

static void event_errors(struct vm *vm) {
  int event = eventfd(0, EFD_NONBLOCK), file = open("/dev/null", O_RDONLY);
  struct acrn_ioeventfd io = {.fd = event, .addr = 0xfe000000, .len = 4};
  struct acrn_irqfd irq = {.fd = -1};
  BAD(vm, IOEVENTFD);
  BAD(vm, IRQFD);
  io.reserved = 1;
  STEP("IOEVENTFD with reserved", ioctl(vm->fd, ACRN_IOCTL_IOEVENTFD, &io));
  io.reserved = 0;
  io.len = 3;
  STEP("IOEVENTFD of 3 bytes", ioctl(vm->fd, ACRN_IOCTL_IOEVENTFD, &io));
  io.len = 8;
  io.addr = -4;
  STEP("IOEVENTFD that wraps", ioctl(vm->fd, ACRN_IOCTL_IOEVENTFD, &io));
  io.addr = 0xfe000000;
  io.fd = -1;
  STEP("IOEVENTFD of no file", ioctl(vm->fd, ACRN_IOCTL_IOEVENTFD, &io));
  io.fd = file;
  STEP("IOEVENTFD of another file", ioctl(vm->fd, ACRN_IOCTL_IOEVENTFD, &io));
  io.fd = event;
  IOCTL(vm, IOEVENTFD, &io);
  STEP("second IOEVENTFD", ioctl(vm->fd, ACRN_IOCTL_IOEVENTFD, &io));
  STEP("IRQFD of no file", ioctl(vm->fd, ACRN_IOCTL_IRQFD, &irq));
  irq.fd = file;
  STEP("IRQFD of another file", ioctl(vm->fd, ACRN_IOCTL_IRQFD, &irq));
  irq.fd = event;
  IOCTL(vm, IRQFD, &irq);
  STEP("second IRQFD", ioctl(vm->fd, ACRN_IOCTL_IRQFD, &irq));
}

static void device_errors(struct vm *vm) {
  union {
    struct acrn_ptdev_irq interrupt;
    struct acrn_pcidev pci;
    struct acrn_mmiodev mmio;
    struct acrn_vdev device;
    uint64_t command;
  } any;
  memset(&any, 0, sizeof any);
  BAD(vm, SET_PTDEV_INTR);
  BAD(vm, RESET_PTDEV_INTR);
  BAD(vm, ASSIGN_PCIDEV);
  BAD(vm, DEASSIGN_PCIDEV);
  BAD(vm, ASSIGN_MMIODEV);
  BAD(vm, DEASSIGN_MMIODEV);
  BAD(vm, CREATE_VDEV);
  BAD(vm, DESTROY_VDEV);
  BAD(vm, PM_GET_CPU_STATE);
  IOCTL(vm, SET_PTDEV_INTR, &any);
  IOCTL(vm, RESET_PTDEV_INTR, &any);
  IOCTL(vm, ASSIGN_PCIDEV, &any);
  IOCTL(vm, DEASSIGN_PCIDEV, &any);
  IOCTL(vm, ASSIGN_MMIODEV, &any);
  IOCTL(vm, DEASSIGN_MMIODEV, &any);
  IOCTL(vm, CREATE_VDEV, &any);
  IOCTL(vm, DESTROY_VDEV, &any);
  any.command = 0xff;
  STEP("PM_GET_CPU_STATE of a foreign command", ioctl(vm->fd, ACRN_IOCTL_PM_GET_CPU_STATE, &any));
  STEP("unknown", ioctl(vm->fd, _IO(ACRN_IOCTL_TYPE, 0xff), 0));
}

static void argument_errors(void) {
  struct vm vm;
  open_vm(&vm);
  register_errors(&vm);
  memory_errors(&vm);
  client_errors(&vm);
  interrupt_errors(&vm);
  event_errors(&vm);
  device_errors(&vm);
  finish(&vm);
}

// How long one hypercall takes, there and back, from a C program.
static void round_trip(void) {
  enum { CALLS = 2000 };
  struct vm vm;
  double begin;
  open_vm(&vm);
  begin = milliseconds();
  for (int i = 0; i < CALLS; i++) ioctl(vm.fd, ACRN_IOCTL_PAUSE_VM, 0);
  tell("hypercall_ns", (milliseconds() - begin) * 1e6 / CALLS);
  begin = milliseconds();
  for (int i = 0; i < CALLS * 10; i++) ioctl(vm.fd, _IO(ACRN_IOCTL_TYPE, 0xff), 0);
  tell("ioctl_ns", (milliseconds() - begin) * 1e6 / CALLS / 10);
  finish(&vm);
}

static const struct {
  const char *name;
  void (*run)(void);
} scenarios[] = {
    {"normal", normal},
    {"two", two},
    {"reset", reset},
    {"attach", attach},
    {"orphan", orphan},
    {"level", level},
    {"no-client", no_client},
    {"big-ram", big_ram},
    {"segments", segments},
    {"create-twice", create_twice},
    {"never-started", never_started},
    {"hold", hold},
    {"io-event", io_event},
    {"irq-event", irq_event},
    {"creation-errors", creation_errors},
    {"state-errors", state_errors},
    {"argument-errors", argument_errors},
    {"round-trip", round_trip},
};

int main(int count, char **arguments) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (size_t i = 0; count == 2 && i < sizeof scenarios / sizeof *scenarios; i++) {
    if (strcmp(arguments[1], scenarios[i].name) != 0) continue;
    scenarios[i].run();
    return 0;
  }
  fprintf(stderr, "usage: scenarios NAME\n");
  return 2;
}
