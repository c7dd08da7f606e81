/** Making a VM while signals come, as from a profiler: the kernel then refuses a step with EINTR and did nothing. */
import { assert, describe, it } from "@effect/vitest"
import { Errno } from "../../../src/domain/Errno.ts"
import { KvmIoctl } from "../../../src/layers/kvm/abi/KvmIoctl.ts"
import type { KvmSystem } from "../../../src/layers/kvm/KvmSystem.ts"
import type { VcpuSetup } from "../../../src/layers/kvm/VcpuSetup.ts"
import { VmFile } from "../../../src/layers/kvm/VmFile.ts"
import type { Libc } from "../../../src/layers/native/Libc.ts"

const DEVICE = 3
const INTERRUPTIONS = 2

/** A kernel that refuses each of these requests so often before it does them. */
class Kernel {
  readonly open = new Set<number>()
  readonly libc: Libc
  private readonly left: Map<number, number>
  private nextFd = DEVICE + 1

  constructor(requests: ReadonlyArray<number>, interruptions: number) {
    this.left = new Map(requests.map((request) => [request, interruptions]))
    this.libc = {
      ioctl: (_: number, request: number) => this.ask(request),
      ioctlAt: (_: number, request: number) => this.ask(request),
      mapShared: () => ({ bytes: new Uint8Array(3 * 4096), unmap: () => undefined }),
      close: (fd: number) => this.open.delete(fd)
    } as Partial<Libc> as Libc
  }

  private ask(request: number): number {
    const left = this.left.get(request) ?? 0
    this.left.set(request, left - 1)
    if (left > 0) return -Errno.EINTR
    if (request !== KvmIoctl.CREATE_VM && request !== KvmIoctl.CREATE_VCPU) return 0
    this.open.add(this.nextFd)
    return this.nextFd++
  }
}

const make = ({ libc }: Kernel) =>
  VmFile.make(libc, { fd: DEVICE, runBytes: 3 * 4096 } as KvmSystem, {
    vcpus: 2,
    hasIrqChip: true,
    hasTimer: true,
    setup: { prepare: () => undefined, apply: () => 0 } as Partial<VcpuSetup> as VcpuSetup
  })

const INTERRUPTIBLE = ["CREATE_VM", "CREATE_IRQCHIP", "CREATE_PIT2", "CREATE_VCPU"] as const

describe("making a VM", () => {
  it("goes on where a signal ended a step before it did anything", () => {
    const kernel = new Kernel(INTERRUPTIBLE.map((name) => KvmIoctl[name]), INTERRUPTIONS)
    const vm = make(kernel)
    if (typeof vm === "number") return assert.fail(`it was not made: ${vm}`)
    assert.lengthOf(vm.vcpus, 2)
    assert.strictEqual(kernel.open.size, 3)
  })

  for (const name of INTERRUPTIBLE) {
    it(`gives up where ${name} is always interrupted, and leaves nothing open`, () => {
      const kernel = new Kernel([KvmIoctl[name]], Infinity)
      assert.strictEqual(make(kernel), -Errno.EINTR)
      assert.strictEqual(kernel.open.size, 0)
    })
  }

  it("makes memory slots and sets lines whatever signals come", () => {
    const kernel = new Kernel([KvmIoctl.SET_USER_MEMORY_REGION, KvmIoctl.IRQ_LINE], INTERRUPTIONS)
    const vm = make(kernel)
    if (typeof vm === "number") return assert.fail(`it was not made: ${vm}`)
    assert.strictEqual(vm.setSlot(0, 0, 4096, 4096, 0), 0)
    assert.strictEqual(vm.setLine(1, true), 0)
  })
})
