/**
 * One vCPU as the kernel has it: its file, and the memory that the kernel shares with whoever runs it (`struct kvm_run`
 * of `<linux/kvm.h>`).
 */
import type { Libc, Mapping } from "../native/Libc.ts"
import { KvmIoctl } from "./abi/KvmIoctl.ts"
import { IMMEDIATE_EXIT_OFFSET } from "./abi/KvmRun.ts"

export class VcpuFile {
  readonly id: number
  readonly fd: number
  /** `struct kvm_run`, as bytes, half words and words. */
  readonly bytes: Uint8Array
  readonly halves: Uint16Array
  readonly words: Uint32Array
  private readonly libc: Libc
  private readonly mapping: Mapping

  constructor(libc: Libc, id: number, fd: number, mapping: Mapping) {
    this.libc = libc
    this.id = id
    this.fd = fd
    this.mapping = mapping
    const { buffer, byteLength, byteOffset } = mapping.bytes
    this.bytes = mapping.bytes
    this.halves = new Uint16Array(buffer, byteOffset, byteLength / 2)
    this.words = new Uint32Array(buffer, byteOffset, byteLength / 4)
  }

  /** Runs the vCPU up to its next exit: 0, or a negative errno. The exit stays open until the next call. */
  enter(): number {
    return this.libc.ioctl(this.fd, KvmIoctl.RUN, 0)
  }

  /** While it is set, {@link enter} finishes the instruction of the exit that is open, and returns -EINTR. */
  setImmediateExit(isSet: boolean): void {
    this.bytes[IMMEDIATE_EXIT_OFFSET] = isSet ? 1 : 0
  }

  /** Asks the kernel with a structure that it reads or fills in: 0 or positive, or a negative errno. */
  ask(request: number, structure: Uint8Array): number {
    return this.libc.ioctlAt(this.fd, request, structure)
  }

  close(): void {
    this.mapping.unmap()
    this.libc.close(this.fd)
  }
}
