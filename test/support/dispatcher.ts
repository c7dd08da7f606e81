/** A dispatcher over a page that the test writes as a hypervisor does, and what the hypervisor then reads. */
import { Effect } from "effect"
import type * as IoRange from "../../src/domain/IoRange.ts"
import { Dispatcher } from "../../src/services/dispatch/Dispatcher.ts"
import type { GuestTimeline } from "../../src/services/GuestTimeline.ts"
import { Complete, FakePage, Free } from "./FakePage.ts"

export const ALL_ONES = 0xffff_ffff

export const makeDispatcher = (vcpus = 2, timeline?: GuestTimeline) => {
  const fake = new FakePage()
  /** The vCPUs that NOTIFY_REQUEST_FINISH was made for. */
  const notified: Array<number> = []
  const dispatcher = new Dispatcher(fake, vcpus, (vcpu) => {
    notified.push(vcpu)
    return 0
  }, timeline)
  /** Takes the answer and frees the slot, once it is COMPLETE. */
  const take = (vcpu = 0): number | undefined => {
    if (fake.state(vcpu) !== Complete) return undefined
    fake.setState(vcpu, Free)
    return fake.answer(vcpu)[0]
  }
  /** A request of one vCPU: its answer, or `undefined` while the vCPU waits. */
  const ask = (request: Parameters<FakePage["submit"]>[1], vcpu = 0): number | undefined => {
    fake.submit(vcpu, request)
    dispatcher.serve(vcpu)
    return take(vcpu)
  }
  return { fake, notified, dispatcher, io: dispatcher.service, ask, take }
}

/** A client that answers at once, and always the same. */
export const constant = (name: string, value: number, ...ranges: ReadonlyArray<IoRange.IoRange>) => ({
  name,
  ranges,
  handle: () => Effect.succeed(value)
})
