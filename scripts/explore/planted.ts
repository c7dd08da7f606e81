/**
 * Bugs of order, planted into our sources one at a time: the explorer has to find each of them. They are what others in
 * this field have had, or what our own guards stand against.
 */

/** A change of a source file: `find` stands in it exactly once. */
export interface Edit {
  readonly file: string
  readonly find: string
  readonly replace: string
}

export interface Planted {
  readonly name: string
  /** The scenario that finds it. */
  readonly scenario: string
  readonly edits: ReadonlyArray<Edit>
}

const PAGE = "src/services/dispatch/RequestPage.ts"
const DISPATCHER = "src/services/dispatch/Dispatcher.ts"
const CLIENTS = "src/services/dispatch/Clients.ts"
const ABANDONMENT = "src/services/dispatch/Abandonment.ts"
const INTAKE = "src/services/dispatch/Intake.ts"
const UPCALLS = "src/services/Upcalls.ts"
const CREATE = "src/services/vm/create.ts"
const HANDLES = "src/services/vm/handles.ts"

const plant = (
  name: string,
  scenario: string,
  file: string,
  ...edits: ReadonlyArray<readonly [find: string, replace: string]>
): Planted => ({ name, scenario, edits: edits.map(([find, replace]) => ({ file, find, replace })) })

const page: ReadonlyArray<Planted> = [
  plant("a completion does not compare its epoch", "client destroy", PAGE, [
    `if (this.held[vcpu] !== HELD || this.epochs[vcpu] !== epoch) return "Stale"`,
    `if (this.held[vcpu] !== HELD) return "Stale"`
  ]),
  plant("a reset forgets no claim", "reset and a request claimed by hand", PAGE, [
    `      this.held[vcpu] = NOT_HELD
      this.unheard[vcpu] = 0
      this.epochs[vcpu] = this.epochs[vcpu]! + 1\n`,
    ``
  ]),
  plant("the vCPU is notified before COMPLETE is stored", "complete", PAGE, [
    `    this.page.store32(vcpu * SLOT_BYTES + Slot.SLOT_STATE_OFFSET, Complete)
    return this.polled[vcpu] === 0`,
    `    if (this.polled[vcpu] === 0) this.tellFinished(vcpu)
    this.page.store32(vcpu * SLOT_BYTES + Slot.SLOT_STATE_OFFSET, Complete)
    return false`
  ]),
  plant("COMPLETE is stored before the value", "polling hypervisor", PAGE, [
    `    if (size !== NO_VALUE) this.page.store32(`,
    `    this.page.store32(base + Slot.SLOT_STATE_OFFSET, Complete)
    if (size !== NO_VALUE) this.page.store32(`
  ]),
  plant("whether a request is polled is read after COMPLETE", "polling hypervisor", PAGE, [
    `return this.polled[vcpu] === 0`,
    `return this.page.load32(vcpu * SLOT_BYTES + Slot.SLOT_COMPLETION_POLLING_OFFSET) === 0`
  ]),
  plant("a request is fetched before its state is read", "parallel hypervisor", PAGE, [
    `    if (this.isShut) return "NotPending"\n`,
    `    if (this.isShut) return "NotPending"
    this.page.fetchRequest(vcpu * SLOT_BYTES, this.words)\n`
  ], [
    `    this.page.fetchRequest(vcpu * SLOT_BYTES, this.words)
    const request =`,
    `    const request =`
  ])
]

const upcalls: ReadonlyArray<Planted> = [
  plant("the page is looked at before the handler is armed", "arming", UPCALLS, [
    `        handlers = [...handlers, handler]
        raise(undefined)`,
    `        handler(undefined)
        handlers = [...handlers, handler]`
  ]),
  plant("the page is not looked at when the handler is armed", "arming", UPCALLS, [
    `        handlers = [...handlers, handler]
        raise(undefined)`,
    `        handlers = [...handlers, handler]`
  ]),
  plant("an upcall inside of an upcall is forgotten", "own ports inside of a handler", UPCALLS, [
    `      again = true
      return`,
    `      return`
  ]),
  plant("an upcall inside of an upcall looks at the outer one's slot", "own ports inside of a handler", UPCALLS, [
    `        again = false
        callAll(handlers, undefined)`,
    `        again = false
        callAll(handlers, hint)`
  ]),
  plant("a page is looked at again only once", "upcall lost", CREATE, [
    `      Effect.forever,
`,
    ``
  ])
]

const clients: ReadonlyArray<Planted> = [
  plant(
    "a client's ranges are freed after its fibers have ended",
    "client destroy",
    CLIENTS,
    [`      this.routes.removeOwner(client)\n`, ``],
    [
      `, this.end(client, self))`,
      `, Effect.andThen(this.end(client, self), Effect.sync(() => this.routes.removeOwner(client))))`
    ]
  ),
  plant("a client's release does not wait for its fibers", "client destroy", ABANDONMENT, [
    `Fiber.interruptAll(others(fibers, self))`,
    `Effect.sync(() => {
    for (const fiber of others(fibers, self)) fiber.interruptUnsafe(self.id)
  })`
  ]),
  plant(
    "a client's release forgets a handler that is being started",
    "client destroy inside of a handler",
    ABANDONMENT,
    [
      `    return awaitStarted(abandoned)`,
      `    return Effect.void`
    ]
  ),
  plant("a client's release forgets a handler that the VM's close ends", "VM destroy and client destroy", ABANDONMENT, [
    `    const fibers = inFlight.lateOf(client)`,
    `    const fibers = inFlight.lateOf(client).filter((fiber) => !this.leaving.fibers.includes(fiber))`
  ]),
  plant("a request that was taken away meanwhile is held", "client destroy inside of a handler", DISPATCHER, [
    `    if (!this.isClaimed(vcpu, epoch)) {
      this.inFlight.endStarted(`,
    `    if (fiber.pollUnsafe() !== undefined) {
      this.inFlight.endStarted(`
  ])
]

const life: ReadonlyArray<Planted> = [
  plant("a pause does not hold new requests back", "pause", DISPATCHER, [
    `    if (this.intake.holds > 0) return\n`,
    ``
  ]),
  plant("a pause waits for the first request only", "pause", INTAKE, [
    `if (this.waiters.length === 0 || this.holders().length > 0) return`,
    `if (this.waiters.length === 0) return`
  ]),
  plant("a resume does not look at the page", "pause", INTAKE, [
    `    if (holds > 0 && this.holds === 0) this.serve()\n`,
    ``
  ]),
  plant("a pause that timed out holds requests back for ever", "pause that may time out", INTAKE, [
    `return Effect.onError(this.nothingHeld(deadline), () => this.unpause)`,
    `return this.nothingHeld(deadline)`
  ]),
  plant("a program's drain ends a pause", "pause and drain", INTAKE, [
    `Effect.sync(() => this.release(this.endDrains()))`,
    `Effect.sync(() => this.release(this.endDrains() + this.endPause()))`
  ]),
  plant("requests are served before the hypervisor has reset the VM", "reset", HANDLES, [
    `    const reset = Effect.gen(function*() {\n`,
    `    const reset = Effect.gen(function*() {\n      yield* dispatcher.resume\n`
  ]),
  plant("a close forgets what was claimed while the vCPUs were being stopped", "VM destroy", CREATE, [
    `              Effect.andThen(serving.abandonAll),\n`,
    ``
  ]),
  plant("a close does not wait for handlers", "VM destroy", CREATE, [
    `    yield* Scope.addFinalizer(handlerScope, dispatcher.handlersEnded)\n`,
    ``
  ]),
  plant("memory is given back before the VM is destroyed", "VM destroy", CREATE, [
    `    yield* Scope.addFinalizer(handlerScope, dispatcher.handlersEnded)\n`,
    `    yield* Scope.addFinalizer(handlerScope, dispatcher.handlersEnded)
    yield* Scope.addFinalizerExit(vmScope, (exit) => Scope.close(memoryScope, exit))\n`
  ]),
  plant("upcalls still reach the page of a VM that is closed", "VM destroy", CREATE, [
    `                dispatchers.delete(vmId)
                serving.page.shut()`,
    ``
  ])
]

export const planted: ReadonlyArray<Planted> = [...page, ...upcalls, ...clients, ...life]
