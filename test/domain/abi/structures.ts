/** Every structure and constant whose place or value the C headers decide. */
import { cNames, HsmIoctl, type HsmIoctlName } from "../../../src/domain/abi/HsmIoctl.ts"
import { INTR_MONITOR_WORDS, IntrCommand, IntrMonitor } from "../../../src/domain/abi/IntrMonitor.ts"
import { IoEventFd, IoEventFdFlag } from "../../../src/domain/abi/IoEventFd.ts"
import { IoRequestBufferWord } from "../../../src/domain/abi/IoRequestBufferWord.ts"
import { IoRequestNotify } from "../../../src/domain/abi/IoRequestNotify.ts"
import * as Slot from "../../../src/domain/abi/IoRequestSlot.ts"
import { IrqFd, IRQFD_DEASSIGN } from "../../../src/domain/abi/IrqFd.ts"
import * as Memory from "../../../src/domain/abi/MemoryRegionBatch.ts"
import { MsiEntry } from "../../../src/domain/abi/MsiEntry.ts"
import { DescriptorPtr, GpRegs, Regs, VcpuRegs } from "../../../src/domain/abi/VcpuRegs.ts"
import { VmCreation } from "../../../src/domain/abi/VmCreation.ts"
import { MemmapTypeCode, VmMemmap } from "../../../src/domain/abi/VmMemmap.ts"
import { MAX_VCPUS } from "../../../src/domain/Limits.ts"
import type { AnyLayout } from "../../../src/testing/laws/layoutValues.ts"

export const structures: ReadonlyArray<AnyLayout> = [
  VmCreation,
  GpRegs,
  DescriptorPtr,
  Regs,
  VcpuRegs,
  Slot.PioRequest,
  Slot.MmioRequest,
  Slot.PciRequest,
  Slot.IoRequestSlot,
  Slot.IoRequestPage,
  IoRequestNotify,
  Memory.MemoryRegionOp,
  Memory.MemoryRegionBatch,
  IoRequestBufferWord,
  VmMemmap,
  MsiEntry,
  IoEventFd,
  IrqFd,
  IntrMonitor
]

export const constants: ReadonlyArray<readonly [cName: string, value: number]> = [
  ["ACRN_IO_REQUEST_MAX", MAX_VCPUS],
  ["ACRN_IOREQ_STATE_PENDING", Slot.SlotStateCode.Pending],
  ["ACRN_IOREQ_STATE_COMPLETE", Slot.SlotStateCode.Complete],
  ["ACRN_IOREQ_STATE_PROCESSING", Slot.SlotStateCode.Processing],
  ["ACRN_IOREQ_STATE_FREE", Slot.SlotStateCode.Free],
  ["ACRN_IOREQ_TYPE_PORTIO", Slot.RequestTypeCode.PortIo],
  ["ACRN_IOREQ_TYPE_MMIO", Slot.RequestTypeCode.Mmio],
  ["ACRN_IOREQ_TYPE_PCICFG", Slot.RequestTypeCode.PciConfig],
  ["ACRN_IOREQ_DIR_READ", Slot.DirectionCode.Read],
  ["ACRN_IOREQ_DIR_WRITE", Slot.DirectionCode.Write],
  ["ACRN_MEM_ACCESS_RIGHT_MASK", Memory.MEMORY_ACCESS_MASK],
  ["ACRN_MEM_ACCESS_READ", Memory.MemoryAccess.Read],
  ["ACRN_MEM_ACCESS_WRITE", Memory.MemoryAccess.Write],
  ["ACRN_MEM_ACCESS_EXEC", Memory.MemoryAccess.Execute],
  ["ACRN_MEM_ACCESS_RWX", Memory.MemoryAccess.All],
  ["ACRN_MEM_TYPE_MASK", Memory.MEMORY_TYPE_MASK],
  ["ACRN_MEM_TYPE_WB", Memory.MemoryType.WriteBack],
  ["ACRN_MEM_TYPE_WT", Memory.MemoryType.WriteThrough],
  ["ACRN_MEM_TYPE_UC", Memory.MemoryType.Uncached],
  ["ACRN_MEM_TYPE_WC", Memory.MemoryType.WriteCombining],
  ["ACRN_MEM_TYPE_WP", Memory.MemoryType.WriteProtected],
  ["ACRN_MEM_REGION_ADD", Memory.MemoryRegionOpCode.Add],
  ["ACRN_MEM_REGION_DEL", Memory.MemoryRegionOpCode.Delete],
  ["ACRN_MEMMAP_RAM", MemmapTypeCode.Ram],
  ["ACRN_MEMMAP_MMIO", MemmapTypeCode.Mmio],
  ["ACRN_IOEVENTFD_FLAG_PIO", IoEventFdFlag.Port],
  ["ACRN_IOEVENTFD_FLAG_DATAMATCH", IoEventFdFlag.DataMatch],
  ["ACRN_IOEVENTFD_FLAG_DEASSIGN", IoEventFdFlag.Deassign],
  ["ACRN_IRQFD_FLAG_DEASSIGN", IRQFD_DEASSIGN],
  ["INTR_CMD_GET_DATA", IntrCommand.GetData],
  ["INTR_CMD_DELAY_INT", IntrCommand.DelayInt],
  ["MAX_PTDEV_NUM * 2", INTR_MONITOR_WORDS],
  ...(Object.keys(HsmIoctl) as Array<HsmIoctlName>).map((name) => [cNames[name], HsmIoctl[name]] as const)
]
