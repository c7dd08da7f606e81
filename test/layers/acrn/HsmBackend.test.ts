import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { IoRequestNotify } from "../../../src/domain/abi/IoRequestNotify.ts"
import { SlotStateCode } from "../../../src/domain/abi/IoRequestSlot.ts"
import { MemoryAccess, MemoryType } from "../../../src/domain/abi/MemoryRegionBatch.ts"
import { Regs, VcpuRegs } from "../../../src/domain/abi/VcpuRegs.ts"
import { VmCreation } from "../../../src/domain/abi/VmCreation.ts"
import { VmMemmap } from "../../../src/domain/abi/VmMemmap.ts"
import { Errno } from "../../../src/domain/Errno.ts"
import type { Hypercall } from "../../../src/domain/Hypercall.ts"
import type { HsmBackend } from "../../../src/layers/acrn/HsmBackend.ts"
import { FakeDriver } from "./FakeDriver.ts"

const creation = (cpuAffinity = 1n, uuid = new Uint8Array(16)): Hypercall => ({
  _tag: "CreateVm",
  creation: { vmid: 0xffff, vcpuNum: 0, uuid, vmFlag: 0n, ioreqBuf: 0n, cpuAffinity }
})

const result = (backend: HsmBackend, hypercall: Hypercall) =>
  Effect.map(backend.execute(hypercall), (outcome) => outcome.result)

/** A VM with its page named: what every start needs. */
const create = Effect.fnUntraced(function*(driver: FakeDriver, backend: HsmBackend) {
  const { created } = yield* backend.execute(creation())
  const vmId = created!.vmId
  const page = yield* driver.memory.allocate({ bytes: 4096, purpose: { _tag: "IoRequestPage" } })
  assert.strictEqual(yield* result(backend, { _tag: "SetIoRequestBuffer", vmId, page: BigInt(page.address) }), 0)
  return { vmId, page }
})

const add = (
  serviceVmPa: number,
  size: number,
  attr: number = MemoryAccess.All | MemoryType.WriteBack,
  userVmPa = 0
) => ({
  type: 0,
  attr,
  userVmPa: BigInt(userVmPa),
  serviceVmPa: BigInt(serviceVmPa),
  size: BigInt(size)
})

const segments = (driver: FakeDriver) =>
  driver.asked.filter(({ name }) => name === "SetMemseg" || name === "UnsetMemseg").map(({ argument, name }) => ({
    name,
    ...Result.getOrThrow(VmMemmap.decode(argument as Uint8Array))
  }))

const registers = Result.getOrThrow(Regs.decode(new Uint8Array(Regs.size)))

describe("HsmBackend", () => {
  it.effect("one life: the page is known at creation, the client is made, the thread waits", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend()
      const { vmId } = yield* create(driver, backend)
      for (const tag of ["StartVm", "PauseVm", "DestroyVm"] as const) {
        assert.strictEqual(yield* result(backend, { _tag: tag, vmId }), 0)
      }
      assert.deepStrictEqual(driver.log, [
        "CreateVm",
        "CreateIoreqClient",
        "wait",
        "StartVm",
        "PauseVm",
        "leave",
        "DestroyVm",
        "close"
      ])
      const asked = Result.getOrThrow(VmCreation.decode(driver.asked[0]!.argument as Uint8Array))
      assert.strictEqual(asked.ioreqBuf % 4096n, 0n)
      assert.strictEqual(driver.openFiles, 0)
    }))

  it.effect("the page that the hypercall names shows the one that the driver has", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend()
      const first = yield* driver.memory.allocate({ bytes: 4096, purpose: { _tag: "IoRequestPage" } })
      const second = yield* driver.memory.allocate({ bytes: 4096, purpose: { _tag: "IoRequestPage" } })
      // Taken before the VM is there, as VirtualMachine does.
      const seen = Result.getOrThrow(driver.memory.page(first.address))
      const vmId = (yield* backend.execute(creation())).created!.vmId
      const real = new Int32Array(backend.find(vmId)!.page.buffer, backend.find(vmId)!.page.byteOffset, 1024)
      real[40] = 7
      assert.strictEqual(seen.load32(160), 0)
      yield* backend.execute({ _tag: "SetIoRequestBuffer", vmId, page: BigInt(first.address) })
      assert.strictEqual(seen.load32(160), 7)
      assert.strictEqual(seen.load32(136), SlotStateCode.Free)
      seen.store32(164, 8)
      assert.strictEqual(real[41], 8)
      const bytes = new Uint8Array(4)
      Result.getOrThrow(driver.memory.read(first.address + 160, bytes))
      assert.deepStrictEqual(bytes, new Uint8Array([7, 0, 0, 0]))
      // Another page takes its place, and a bad one takes it away.
      yield* backend.execute({ _tag: "SetIoRequestBuffer", vmId, page: BigInt(second.address) })
      assert.strictEqual(seen.load32(160), 0)
      const ram = yield* driver.memory.allocate({ bytes: 4096, purpose: { _tag: "HypercallStructures" } })
      for (const page of [ram.address, second.address + 1, 0, 2 ** 52]) {
        assert.strictEqual(
          yield* result(backend, { _tag: "SetIoRequestBuffer", vmId, page: BigInt(page) }),
          -Errno.EPERM
        )
      }
      assert.strictEqual(yield* result(backend, { _tag: "StartVm", vmId }), -Errno.EPERM)
      assert.notInclude(driver.names(), "StartVm")
    }))

  it.effect("a VM that is not paused is not destroyed, nor the driver asked: it would free the client under its waiter", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend()
      const { vmId } = yield* create(driver, backend)
      assert.strictEqual(yield* result(backend, { _tag: "DestroyVm", vmId }), -Errno.EPERM)
      yield* backend.execute({ _tag: "StartVm", vmId })
      assert.strictEqual(yield* result(backend, { _tag: "DestroyVm", vmId }), -Errno.EPERM)
      assert.notInclude(driver.log, "DestroyVm")
      assert.notInclude(driver.log, "leave")
      assert.strictEqual(driver.openFiles, 1)
    }))

  it.effect("a destruction that is refused all the same leaves the VM waited for", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend()
      const { vmId } = yield* create(driver, backend)
      yield* backend.execute({ _tag: "PauseVm", vmId })
      driver.results.DestroyVm = -Errno.EPERM
      assert.strictEqual(yield* result(backend, { _tag: "DestroyVm", vmId }), -Errno.EPERM)
      assert.strictEqual(driver.waiting.size, 1)
      assert.include(backend.refusals.at(-1)!.message, "ACRN_IOCTL_DESTROY_VM on VM 1 was refused with EPERM (-1)")
      driver.results.DestroyVm = 0
      assert.strictEqual(yield* result(backend, { _tag: "DestroyVm", vmId }), 0)
      assert.strictEqual(driver.waiting.size, 0)
    }))

  it.effect("a reset clears the driver's requests first, while paused, and gives the registers back", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend()
      const { vmId } = yield* create(driver, backend)
      yield* backend.execute({ _tag: "SetVcpuRegs", vmId, vcpuId: 0, registers: { ...registers, rip: 5n } })
      yield* backend.execute({ _tag: "SetVcpuRegs", vmId, vcpuId: 0, registers: { ...registers, rip: 6n } })
      // Not paused: nothing may be cleared.
      driver.results.ResetVm = -Errno.EPERM
      yield* backend.execute({ _tag: "StartVm", vmId })
      yield* backend.execute({ _tag: "ResetVm", vmId })
      assert.notInclude(driver.log, "ClearVmIoreq")
      driver.results.ResetVm = 0
      yield* backend.execute({ _tag: "PauseVm", vmId })
      driver.log.length = 0
      assert.strictEqual(yield* result(backend, { _tag: "ResetVm", vmId }), 0)
      assert.deepStrictEqual(driver.log, ["ClearVmIoreq", "ResetVm", "all finished", "SetVcpuRegs"])
      const last = Result.getOrThrow(VcpuRegs.decode(driver.asked.at(-1)!.argument as Uint8Array))
      assert.strictEqual(last.vcpuRegs.rip, 6n)
      // Created again: it starts, and is not destroyed unless it is paused.
      assert.strictEqual(yield* result(backend, { _tag: "StartVm", vmId }), 0)
    }))

  it.effect("a notification names the vCPU, and the thread hears of it after the driver", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      driver.vcpus = 2
      const backend = driver.backend()
      const { vmId } = yield* create(driver, backend)
      driver.log.length = 0
      assert.strictEqual(backend.notifyFinish(vmId, 1), 0)
      assert.deepStrictEqual(driver.log, ["NotifyRequestFinish", "finished 1"])
      assert.deepStrictEqual(Result.getOrThrow(IoRequestNotify.decode(driver.asked.at(-1)!.argument as Uint8Array)), {
        vmid: vmId,
        vcpu: 1
      })
      driver.log.length = 0
      for (const [vm, vcpu] of [[vmId, 2], [vmId, -1], [99, 0]] as const) {
        assert.strictEqual(backend.notifyFinish(vm, vcpu), -Errno.EPERM)
      }
      assert.deepStrictEqual(driver.log, [])
    }))

  it.effect("RAM goes in pieces that the driver can list, and rights alone", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend()
      const { vmId } = yield* create(driver, backend)
      const piece = 64 * 2 ** 20
      const bytes = 2 * piece + 4096
      const ram = yield* driver.memory.allocate({ bytes, purpose: { _tag: "GuestRam", vmId } })
      const operations = [add(ram.address, bytes, MemoryAccess.Read | MemoryType.WriteBack, 0x10_0000)]
      assert.strictEqual(yield* result(backend, { _tag: "SetMemoryRegions", vmId, operations }), 0)
      assert.deepStrictEqual(
        segments(driver),
        [0, piece, 2 * piece].map((offset) => ({
          name: "SetMemseg",
          type: 0,
          attr: MemoryAccess.Read,
          userVmPa: BigInt(0x10_0000 + offset),
          vmaBase: BigInt(ram.address + offset),
          len: BigInt(Math.min(piece, bytes - offset))
        }))
      )
      assert.deepInclude(driver.advised, [ram.address, bytes])
    }))

  it.effect("what the driver would take and must not is not asked of it", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend({ mmio: [{ address: 0xfed0_0000, bytes: 0x2000 }] })
      const { vmId } = yield* create(driver, backend)
      const ram = yield* driver.memory.allocate({ bytes: 8192, purpose: { _tag: "GuestRam", vmId } })
      const uncached = MemoryAccess.All | MemoryType.Uncached
      const refused: ReadonlyArray<readonly [ReturnType<typeof add>, number]> = [
        // Memory of this process that the layer did not give, as RAM.
        [add(ram.address + 4096, 8192), -Errno.EPERM],
        [add(0x1000, 4096), -Errno.EPERM],
        // A user address as a physical one, and physical memory outside of every window.
        [add(ram.address, 4096, uncached), -Errno.EPERM],
        [add(0xfed0_1000, 0x2000, uncached), -Errno.EPERM],
        [add(ram.address, 4096, MemoryAccess.All | MemoryType.WriteCombining), -Errno.EINVAL],
        [add(ram.address, 0x1800), -Errno.EINVAL],
        [add(ram.address + 16, 4096), -Errno.EINVAL],
        [add(ram.address, 4096, MemoryAccess.All | MemoryType.WriteBack, 0x123), -Errno.EINVAL]
      ]
      for (const [operation, expected] of refused) {
        assert.strictEqual(
          yield* result(backend, { _tag: "SetMemoryRegions", vmId, operations: [operation] }),
          expected
        )
        assert.strictEqual(backend.refusals.at(-1)!.reason._tag, "NotAsked")
      }
      assert.deepStrictEqual(segments(driver), [])
      assert.strictEqual(yield* result(backend, { _tag: "SetMemoryRegions", vmId, operations: [] }), -Errno.EPERM)
    }))

  it.effect("MMIO of a window comes and goes; RAM stays", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend({ mmio: [{ address: 0xfed0_0000, bytes: 0x2000 }] })
      const { vmId } = yield* create(driver, backend)
      const ram = yield* driver.memory.allocate({ bytes: 8192, purpose: { _tag: "GuestRam", vmId } })
      const remove = (guest: number, size: number) => ({ ...add(0, size, 0, guest), type: 2 })
      const set = (operation: ReturnType<typeof add>) =>
        result(backend, { _tag: "SetMemoryRegions", vmId, operations: [operation] })
      const uncached = MemoryAccess.Read | MemoryType.Uncached
      assert.strictEqual(yield* set(add(ram.address, 8192)), 0)
      assert.strictEqual(yield* set(add(0xfed0_1000, 4096, uncached, 0x8000_0000)), 0)
      assert.strictEqual(yield* set(remove(0x8000_0000, 4096)), 0)
      assert.deepStrictEqual(segments(driver).slice(1), [
        { name: "SetMemseg", type: 1, attr: 1, userVmPa: 0x8000_0000n, vmaBase: 0xfed0_1000n, len: 4096n },
        { name: "UnsetMemseg", type: 1, attr: 0, userVmPa: 0x8000_0000n, vmaBase: 0n, len: 4096n }
      ])
      for (const [guest, size] of [[0, 4096], [0x1000, 0x4000]] as const) {
        assert.strictEqual(yield* set(remove(guest, size)), -Errno.EINVAL)
      }
      // Beyond all addresses there can be, which no request has room for.
      for (const userVmPa of [(1n << 64n) - 1n, (1n << 64n) - 4096n, 1n << 52n]) {
        assert.strictEqual(yield* set({ ...remove(0, 4096), userVmPa }), -Errno.EINVAL)
      }
      assert.strictEqual(segments(driver).length, 3)
      // Nothing is no part of the RAM around it.
      assert.strictEqual(yield* set(remove(0x1000, 0)), 0)
    }))

  it.effect("a batch ends at its first refusal", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend()
      const { vmId } = yield* create(driver, backend)
      const ram = yield* driver.memory.allocate({ bytes: 8192, purpose: { _tag: "GuestRam", vmId } })
      const operations = [add(ram.address, 4096), add(1, 4096), add(ram.address, 4096)]
      assert.strictEqual(yield* result(backend, { _tag: "SetMemoryRegions", vmId, operations }), -Errno.EINVAL)
      assert.strictEqual(segments(driver).length, 1)
    }))

  it.effect("processors and names are those of the options", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend({ processors: [3, 5], names: ["one", "two"], vmFlags: 4n })
      const asked = () => Result.getOrThrow(VmCreation.decode(driver.asked.at(-2)!.argument as Uint8Array))
      const nameOf = () => new TextDecoder().decode(asked().uuid).replaceAll("\0", "")
      yield* backend.execute(creation(0b11n))
      assert.strictEqual(asked().cpuAffinity, 1n << 3n | 1n << 5n)
      assert.strictEqual(asked().vmFlag, 4n)
      assert.strictEqual(nameOf(), "one")
      yield* backend.execute(creation(0b10n))
      assert.strictEqual(asked().cpuAffinity, 1n << 5n)
      assert.strictEqual(nameOf(), "two")
      yield* backend.execute(creation(1n, new Uint8Array(16).fill(9)))
      assert.deepStrictEqual(asked().uuid, new Uint8Array(16).fill(9))
      // A third vCPU has no processor.
      const before = driver.asked.length
      assert.strictEqual(yield* result(backend, creation(0b100n)), -Errno.EPERM)
      assert.strictEqual(driver.asked.length, before)
      assert.strictEqual(driver.released, 1)
    }))

  it.effect("a VM that cannot be made leaves nothing open", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend()
      driver.openResult = -Errno.EACCES
      assert.strictEqual(yield* result(backend, creation()), -Errno.EACCES)
      driver.openResult = 0
      driver.results.CreateVm = -Errno.EINVAL
      assert.strictEqual(yield* result(backend, creation()), -Errno.EINVAL)
      driver.results.CreateVm = 0
      driver.results.CreateIoreqClient = -Errno.EEXIST
      assert.strictEqual(yield* result(backend, creation()), -Errno.EEXIST)
      driver.results.CreateIoreqClient = 0
      // More vCPUs than slots: the driver would look behind the page.
      driver.vcpus = 17
      driver.log.length = 0
      assert.strictEqual(yield* result(backend, creation()), -Errno.EPERM)
      assert.deepStrictEqual(driver.log, ["CreateVm", "CreateIoreqClient", "PauseVm", "DestroyVm", "close"])
      assert.strictEqual(driver.openFiles, 0)
      assert.strictEqual(driver.released, 4)
      const failing = driver.backend({ waiters: { take: () => Promise.reject(new Error("no thread")) } })
      assert.strictEqual(yield* result(failing, creation()), -Errno.EAGAIN)
      assert.include(failing.refusals[0]!.message, "no thread")
    }))

  it.effect("the end of the process ends every VM: the driver would not survive it", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend()
      const { vmId } = yield* create(driver, backend)
      yield* backend.execute({ _tag: "StartVm", vmId })
      driver.log.length = 0
      backend.endAll()
      assert.deepStrictEqual(driver.log, ["leave", "PauseVm", "DestroyVm", "close"])
      assert.strictEqual(yield* result(backend, { _tag: "PauseVm", vmId }), -Errno.EPERM)
    }))

  it.effect("what a thread tells is an upcall with a hint, and its failure is kept", () =>
    Effect.gen(function*() {
      const driver = new FakeDriver()
      const backend = driver.backend()
      const { vmId } = yield* create(driver, backend)
      const [waiting] = driver.waiting.values()
      waiting!.onRequest(0)
      assert.deepStrictEqual(driver.upcalls, [{ vmId, vcpu: 0 }])
      waiting!.onFailure("the driver answered -19")
      assert.include(backend.refusals.at(-1)!.message, "the driver answered -19")
    }))
})
