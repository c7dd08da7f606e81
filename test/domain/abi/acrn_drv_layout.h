/*
 * The layout, and nothing else, of structures that Linux 6.1 keeps inside its driver
 * (drivers/virt/acrn/acrn_drv.h) and so does not install as a header, and of one that only ACRN has: member names,
 * widths and order.
 * Only the layout check includes this file.
 */
#ifndef UPCALL_ACRN_DRV_LAYOUT_H
#define UPCALL_ACRN_DRV_LAYOUT_H

#include <stdint.h>

enum {
  ACRN_MEM_REGION_ADD = 0,
  ACRN_MEM_REGION_DEL = 2
};

struct vm_memory_region_op {
  uint32_t type, attr;
  uint64_t user_vm_pa, service_vm_pa, size;
};

struct vm_memory_region_batch {
  uint16_t vmid, reserved[3];
  uint32_t regions_num;
  uint64_t regions_gpa;
  struct vm_memory_region_op regions_op[];
};

struct acrn_ioreq_buffer {
  uint64_t ioreq_buf;
};

/* Of ACRN's hypervisor/include/public/acrn_common.h, which Linux has no copy of. */
enum {
  MAX_PTDEV_NUM = 24,
  INTR_CMD_GET_DATA = 0,
  INTR_CMD_DELAY_INT = 1
};

struct acrn_intr_monitor {
  uint32_t cmd, buf_cnt;
  uint64_t buffer[MAX_PTDEV_NUM * 2];
};

#endif
