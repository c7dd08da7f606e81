/** Every refusal that a user can meet in the services, provoked, with the message as it reads. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Result, Scope } from "effect"
import { TestClock } from "effect/testing"
import { MemoryRegionOpCode } from "../../src/domain/abi/MemoryRegionBatch.ts"
import * as IoRange from "../../src/domain/IoRange.ts"
import { INVALID_VM_ID } from "../../src/domain/Limits.ts"
import * as VcpuRegisters from "../../src/domain/VcpuRegisters.ts"
import * as Simulated from "../../src/layers/Simulated.ts"
import { RequestPage } from "../../src/services/dispatch/RequestPage.ts"
import * as HypercallsModule from "../../src/services/Hypercalls.ts"
import { Hypercalls } from "../../src/services/Hypercalls.ts"
import { VcpuState } from "../../src/services/Hypervisor.ts"
import * as IoRequestBuffer from "../../src/services/IoRequestBuffer.ts"
import { ServiceMemory, ServiceMemoryError } from "../../src/services/ServiceMemory.ts"
import * as VirtualMachine from "../../src/services/VirtualMachine.ts"
import { FakePage } from "../support/FakePage.ts"
import * as g from "../support/guest.ts"
import { bootWith, ENTRY, onSimulated, TEST_PORTS, turns } from "../support/machines.ts"

type Provided = Layer.Success<typeof Simulated.layer> | VirtualMachine.VirtualMachine | Hypercalls | Scope.Scope
type Row = readonly [
  what: string,
  /** Something that must fail. */
  provoke: Effect.Effect<unknown, { readonly message: string }, Provided>,
  message: string,
  options?: Simulated.SimulatedOptions
]

const rows = (name: string, table: ReadonlyArray<Row>) =>
  describe(name, () => {
    for (const [what, provoke, message, options] of table) {
      it.effect(what, () =>
        Effect.map(
          Effect.flip(provoke).pipe(Effect.provide(HypercallsModule.layer), onSimulated(options)),
          (error) => assert.strictEqual(error.message, message)
        ))
    }
  })

const registers = VcpuRegisters.flat32({ entry: ENTRY })
const page = { type: MemoryRegionOpCode.Add, attr: 0x47, userVmPa: 0n, serviceVmPa: 0n, size: 4096n }

const hypercalls = <A, E>(f: (calls: Hypercalls["Service"]) => Effect.Effect<A, E>) => Effect.flatMap(Hypercalls, f)
/** A VM without a page, made by hand. */
const onVm = <A, E>(f: (calls: Hypercalls["Service"], vmId: number) => Effect.Effect<A, E>) =>
  hypercalls((calls) => Effect.flatMap(calls.createVm({ cpuAffinity: 1n }), ({ vmId }) => f(calls, vmId)))

rows("HypercallError", [
  [
    "too many vCPUs",
    hypercalls((calls) => calls.createVm({ cpuAffinity: 0x1_ffffn })),
    "CREATE_VM on VM 65535 was refused with EPERM (-1); the hypervisor accepts it when a VM slot is free and the " +
    "structure is valid"
  ],
  [
    "no room for a VM",
    onVm((calls) => calls.createVm({ cpuAffinity: 1n })),
    "CREATE_VM returned no VM id: the hypervisor has no room for another VM; destroy one first",
    { maxVms: 1 }
  ],
  [
    "a value that its field cannot hold",
    hypercalls((calls) => calls.createVm({ cpuAffinity: -1n })),
    "CREATE_VM was not sent: acrn_vm_creation.cpuAffinity cannot hold -1; pass a value of the field's type and width"
  ],
  [
    "destroying a VM that is not paused",
    onVm((calls, vmId) => calls.destroyVm(vmId)),
    "DESTROY_VM on VM 1 was refused with EPERM (-1); the hypervisor accepts it when the VM is Paused"
  ],
  [
    "starting a VM without a page",
    onVm((calls, vmId) => calls.startVm(vmId)),
    "START_VM on VM 1 was refused with EPERM (-1); the hypervisor accepts it when the VM is Created and its I/O " +
    "request page is set"
  ],
  [
    "pausing a VM that is not there",
    hypercalls((calls) => calls.pauseVm(7)),
    "PAUSE_VM on VM 7 was refused with EPERM (-1); the hypervisor accepts it when the VM exists"
  ],
  [
    "resetting a VM that is not paused",
    onVm((calls, vmId) => calls.resetVm(vmId)),
    "RESET_VM on VM 1 was refused with EPERM (-1); the hypervisor accepts it when the VM is Paused"
  ],
  [
    "registers of a vCPU that is not there",
    onVm((calls, vmId) => calls.setVcpuRegs(vmId, 1, registers)),
    "SET_VCPU_REGS on VM 1 was refused with EPERM (-1); the hypervisor accepts it when the VM is not Running, the " +
    "vCPU exists, and CR0 and CR4 are legal"
  ],
  [
    "a page that is no memory",
    onVm((calls, vmId) => calls.setIoRequestBuffer(vmId, 0x5000)),
    "SET_IOREQ_BUFFER on VM 1 was refused with EPERM (-1); the hypervisor accepts it when the VM is Created and the " +
    "page is Service VM memory"
  ],
  [
    "notifying a VM without a page",
    onVm((calls, vmId) => calls.notifyRequestFinish(vmId, 0)),
    "NOTIFY_REQUEST_FINISH on VM 1 was refused with EPERM (-1); the hypervisor accepts it when the VM has an I/O " +
    "request page and the vCPU exists"
  ],
  [
    "no memory operation",
    onVm((calls, vmId) => calls.setMemoryRegions(vmId, [])),
    "VM_SET_MEMORY_REGIONS on VM 1 was refused with EPERM (-1); the hypervisor accepts it when the VM exists, the " +
    "batch is not empty, and every size is a multiple of 0x1000 inside the Service VM's memory"
  ],
  [
    "a memory operation of half a page",
    onVm((calls, vmId) => calls.setMemoryRegions(vmId, [{ ...page, size: 2048n }])),
    "VM_SET_MEMORY_REGIONS on VM 1 was refused with EINVAL (-22); the hypervisor accepts it when the VM exists, the " +
    "batch is not empty, and every size is a multiple of 0x1000 inside the Service VM's memory"
  ],
  [
    "more memory operations than a batch takes",
    onVm((calls, vmId) => calls.setMemoryRegions(vmId, Array.from({ length: 257 }, () => page))),
    "VM_SET_MEMORY_REGIONS was not sent: 257 operations are more than the 256 of one batch; send them in several"
  ],
  [
    "a line that is not there",
    onVm((calls, vmId) => calls.setIrqLine(vmId, 16, 0)),
    "SET_IRQLINE on VM 1 was refused with EPERM (-1); the hypervisor accepts it when the VM exists and has that line"
  ],
  [
    "no memory for the structures",
    Effect.scoped(Effect.gen(function*() {
      const memory = yield* ServiceMemory
      const full = ServiceMemory.of({
        ...memory,
        allocate: ({ bytes }) =>
          Effect.fail(new ServiceMemoryError({ reason: { _tag: "NoMemory", bytes, available: 0 } }))
      })
      const calls = yield* HypercallsModule.make.pipe(Effect.provideService(ServiceMemory, full))
      yield* calls.pauseVm(1)
    })),
    "PAUSE_VM was not sent: 12288 bytes of Service VM memory were asked for but only 0 are left; ask for less, or " +
    "give the layer more"
  ]
])

const created = bootWith({ name: "guest" }, g.code(g.inp(0x100), g.stop))

rows("VirtualMachineError", [
  [
    "a rescan that never comes",
    Effect.scoped(Layer.build(VirtualMachine.layerWith({ rescan: Infinity }))),
    "rescan is Infinity but must be a positive, finite duration, in milliseconds"
  ],
  [
    "vCPUs that no VM can have",
    Effect.flatMap(VirtualMachine.VirtualMachine, ({ create }) => create({ memoryBytes: 4096, vcpus: 17 })),
    "vcpus is 17 but must be an integer from 1 to 16"
  ],
  [
    "RAM of half a page",
    Effect.flatMap(VirtualMachine.VirtualMachine, ({ create }) => create({ memoryBytes: 2048 })),
    "memoryBytes is 2048 but must be a positive multiple of 4096"
  ],
  [
    "more RAM than the layer has",
    Effect.flatMap(VirtualMachine.VirtualMachine, ({ create }) => create({ memoryBytes: 2 ** 31 })),
    "the simulated hypervisor gives a VM at most 1073741824 bytes of RAM, not 2147483648; ask for less, or choose " +
    "another hypervisor layer"
  ],
  [
    "no room for another VM",
    Effect.flatMap(
      VirtualMachine.VirtualMachine,
      ({ create }) => Effect.andThen(create({ memoryBytes: 4096 }), create({ memoryBytes: 4096, name: "second" }))
    ),
    "VM \"second\" could not be created: CREATE_VM returned no VM id: the hypervisor has no room for another VM; " +
    "destroy one first",
    { maxVms: 1 }
  ],
  [
    "a handle from before",
    Effect.flatMap(created, (vm) => Effect.andThen(vm.pause, vm.start)),
    "this handle of VM \"guest\" is from its Created state, the VM is Paused now; use the handle that the last " +
    "command returned"
  ],
  [
    "a handle of a VM that was closed",
    Effect.flatMap(Effect.scoped(created), (vm) => vm.start),
    "this handle of VM \"guest\" is from its Created state, the VM is Destroyed now; use the handle that the last " +
    "command returned"
  ],
  [
    "resuming what never ran",
    Effect.flatMap(created, (vm) => Effect.flatMap(vm.pause, (paused) => paused.resume)),
    "VM \"guest\" is Paused, Resume is accepted when it is Paused (after it ran)"
  ],
  [
    "memory over memory",
    Effect.flatMap(created, (vm) => vm.mapMemory({ guestAddress: 0x1_f000, bytes: 0x2000 })),
    "guest memory 0x1f000-0x20fff overlaps 0x0-0x1ffff, which is mapped; unmap that first"
  ],
  [
    "memory at no page",
    Effect.flatMap(created, (vm) => vm.mapMemory({ guestAddress: 0x10_0001, bytes: 0x1000 })),
    "region is 1048577 but must be a page-aligned guest address with a page-aligned size, below 2^52 " +
    "(0x100001 is not page-aligned\n  at [\"guestAddress\"])"
  ],
  [
    "taking away what is not there",
    Effect.flatMap(created, (vm) => vm.unmapMemory({ guestAddress: 0x1_f000, bytes: 0x2000 })),
    "guest memory 0x1f000-0x20fff is not all mapped; unmap only what memory.regions lists"
  ],
  [
    "an image that does not fit",
    Effect.flatMap(created, (vm) =>
      vm.load({
        memoryBytes: 1,
        segments: [{ name: "kernel", address: 0x1_ffff as never, bytes: new Uint8Array(2) }],
        registers
      })),
    "the image does not fit this VM: segment \"kernel\" at guest address 0x1ffff with 2 bytes is not wholly in RAM; " +
    "give the VM more memory, or load it elsewhere"
  ],
  [
    "a vCPU that the VM has not",
    Effect.flatMap(created, (vm) => vm.setRegisters(1, registers)),
    "vcpu is 1 but must be a vCPU of this VM, 0 to 0"
  ],
  [
    "registers that no processor takes",
    Effect.flatMap(created, (vm) => vm.setRegisters(0, { ...registers, cr0: 1n })),
    "registers of vCPU 0 were not set: CR0 0x1 has NE clear, which a guest cannot; set bit 5 (0x20)"
  ],
  [
    "a mode that the layer does not run",
    Effect.flatMap(created, (vm) => vm.setRegisters(0, { ...VcpuRegisters.flat32({ entry: 0 }), ia32Efer: 1n << 10n })),
    "the simulated hypervisor cannot give a vCPU start in mode Long64, only Real or Protected32; ask for that, or " +
    "choose another hypervisor layer"
  ],
  [
    "registers of a VM that runs",
    Effect.flatMap(created, (vm) => Effect.andThen(vm.start, vm.registers(0))),
    "VM \"guest\" could not read the registers of vCPU 0: they can be read while the VM is paused and the vCPU does " +
    "not wait inside an instruction"
  ],
  [
    "registers of a VM that was closed",
    Effect.flatMap(Effect.scoped(created), (vm) => vm.registers(0)),
    "VM \"guest\" could not read the registers of vCPU 0: its scope was closed; read them before"
  ],
  [
    "a device that does not answer while the VM is paused",
    Effect.gen(function*() {
      const vm = yield* created
      const asked = yield* Deferred.make<void>()
      yield* vm.io.register({
        name: "uart",
        ranges: [TEST_PORTS],
        handle: () => Effect.andThen(Deferred.succeed(asked, undefined), Effect.never)
      })
      const running = yield* vm.start
      yield* Deferred.await(asked)
      const pausing = yield* Effect.forkChild(running.pause, { startImmediately: true })
      yield* turns(2)
      yield* TestClock.adjust("1 seconds")
      yield* Fiber.join(pausing)
    }),
    "VM \"guest\" was not paused and runs on: requests were still held after 1000 ms by uart; make these handlers " +
    "answer, or close their clients"
  ]
])

const client = (name: string, ...ranges: ReadonlyArray<IoRange.IoRange>) => ({
  name,
  ranges,
  handle: () => Effect.void
})

rows("IoDispatcherError", [
  [
    "ports that another client owns",
    Effect.flatMap(created, ({ io }) =>
      Effect.andThen(
        io.register(client("uart", IoRange.ports(0x3f8, 0x3ff))),
        io.register(client("modem", IoRange.ports(0x3fc, 0x40f)))
      )),
    "client \"modem\" cannot have ports 0x3fc-0x40f: client \"uart\" owns ports 0x3f8-0x3ff; choose other addresses, " +
    "or remove that range first"
  ],
  [
    "a range that is not the client's",
    Effect.flatMap(
      created,
      ({ io }) =>
        Effect.flatMap(
          io.register(client("uart", IoRange.ports(0x3f8, 0x3ff))),
          (uart) => uart.removeRange(IoRange.ports(0x3f8, 0x3f9))
        )
    ),
    "client \"uart\" does not own ports 0x3f8-0x3f9; name a range exactly as it was registered"
  ],
  [
    "a range that ends before it begins",
    Effect.flatMap(
      created,
      ({ io }) => io.register(client("uart", { _tag: "Port", start: 9 as never, end: 3 as never }))
    ),
    "client \"uart\" asked for a range that is none: a range's end (0x3) must not lie before its start (0x9); make " +
    "ranges with IoRange.ports, mmio or pciFunction"
  ],
  [
    "a range for a client that was closed",
    Effect.flatMap(
      created,
      ({ io }) =>
        Effect.flatMap(Effect.scoped(io.register(client("uart"))), (uart) => uart.addRange(IoRange.ports(0x3f8, 0x3ff)))
    ),
    "client \"uart\" was closed with its scope and cannot have ranges; register it again"
  ],
  [
    "a second default client",
    Effect.flatMap(created, ({ io }) =>
      Effect.andThen(
        io.registerDefault({ name: "log", handle: () => Effect.void }),
        io.registerDefault({ name: "trace", handle: () => Effect.void })
      )),
    "client \"trace\" cannot be the default client: \"log\" is; a VM has one default client, close its scope first"
  ],
  [
    "a deadline that has passed before it began",
    Effect.flatMap(created, ({ io }) => io.register({ ...client("uart"), deadline: "-1 second" })),
    "client \"uart\" asked for a deadline of -1000 ms; give a positive, finite duration, or none to let it hold " +
    "requests for ever"
  ]
])

rows("ServiceMemoryError", [
  [
    "an address that is no memory",
    Effect.flatMap(ServiceMemory, (memory) => Effect.fromResult(memory.read(0x5000, new Uint8Array(8)))),
    "8 bytes at service address 0x5000 are not wholly inside allocated Service VM memory; use addresses of a region " +
    "that ServiceMemory.allocate gave and that is not yet released"
  ],
  [
    "a page that begins nowhere",
    Effect.flatMap(ServiceMemory, (memory) => Effect.fromResult(memory.page(0x5008))),
    "service address 0x5008 is not where a page begins; it must be a multiple of 0x1000"
  ],
  [
    "more memory than there is",
    Effect.flatMap(ServiceMemory, (memory) => memory.allocate({ bytes: 0x2_0000, purpose: { _tag: "IoRequestPage" } })),
    "131072 bytes of Service VM memory were asked for but only 65536 are left; ask for less, or give the layer more",
    { maxRamBytes: 0x1_0000 }
  ],
  [
    "half a page",
    Effect.flatMap(ServiceMemory, (memory) => memory.allocate({ bytes: 2048, purpose: { _tag: "IoRequestPage" } })),
    "Service VM memory of 2048 bytes cannot be given: the size must be a positive multiple of 4096"
  ],
  [
    "more memory than the host has",
    Effect.flatMap(ServiceMemory, (memory) => memory.allocate({ bytes: 2 ** 50, purpose: { _tag: "IoRequestPage" } })),
    "Service VM memory of 1125899906842624 bytes cannot be given: the host has not that much memory (RangeError: " +
    "Array buffer allocation failed)",
    { maxRamBytes: 2 ** 51 }
  ]
])

rows("GuestMemoryError", [
  [
    "an address beyond RAM",
    Effect.flatMap(created, (vm) => vm.memory.read(0x1_fffe, 4)),
    "4 bytes at guest address 0x1fffe are not all RAM of this VM; its RAM is 0x0-0x1ffff; check the address that the " +
    "guest or the image gave"
  ]
])

/** A page that a test writes, and the slots over it. */
const slots = (prepare: (fake: FakePage) => void) => {
  const fake = new FakePage()
  prepare(fake)
  return IoRequestBuffer.fromPage(new RequestPage(fake, 2, () => 0))
}

rows("IoRequestBufferError", [
  [
    "a vCPU that the VM has not",
    Effect.suspend(() => slots(() => undefined).pending(2)),
    "there is no slot for vCPU 2: the VM has 2, counted from 0"
  ],
  [
    "a second completion",
    Effect.gen(function*() {
      const pending = yield* slots((fake) => fake.submit(0, {})).pending(0)
      const processing = yield* pending!.claim
      yield* processing.complete(1)
      yield* processing.complete(2)
    }),
    "this request of vCPU 0 (epoch 1) is over, the slot is at epoch 2; complete each claim once, and none after a reset"
  ],
  [
    "a state that nobody may have set",
    Effect.suspend(() => slots((fake) => fake.setState(1, 2)).pending(1)),
    "slot of vCPU 1: the slot says PROCESSING but nobody holds it; it was not obeyed"
  ],
  [
    "a request that cannot be",
    Effect.suspend(() => slots((fake) => fake.submit(0, { type: 5 })).pending(0)),
    "slot of vCPU 0 holds no possible request: type 5 is none of port I/O (0), MMIO (1), PCI configuration (2), write " +
    "protection (3); it was answered with all-ones"
  ]
])

describe("the numbers behind the messages", () => {
  it.effect("are in the reasons", () =>
    Effect.gen(function*() {
      const calls = yield* Hypercalls
      const error = yield* Effect.flip(calls.createVm({ cpuAffinity: 0x1_ffffn }))
      assert.deepStrictEqual(error.reason, {
        _tag: "Refused",
        hypercall: "CREATE_VM",
        vmId: INVALID_VM_ID,
        result: -1,
        acceptedWhen: "a VM slot is free and the structure is valid"
      })
      assert.isTrue(Result.isFailure((yield* ServiceMemory).page(1)))
      assert.isUndefined(yield* (yield* VcpuState).read(1, 0))
    }).pipe(Effect.provide(HypercallsModule.layer), onSimulated()))
})
