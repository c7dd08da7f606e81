import { assert, describe, it } from "@effect/vitest"
import * as Slot from "../../../src/domain/abi/IoRequestSlot.ts"
import { DefaultClientPage, pageFor } from "../../../src/services/dispatch/DefaultClientPage.ts"
import { RequestPage } from "../../../src/services/dispatch/RequestPage.ts"
import { Complete, FakePage, Free, Pending, Processing } from "../../support/FakePage.ts"

/** A page on which the kernel has left the request of a vCPU to us, or not. */
const make = (vcpus = 2) => {
  const fake = new FakePage()
  const notified: Array<number> = []
  const page = new DefaultClientPage(fake, vcpus, (vcpu) => {
    notified.push(vcpu)
    // What the kernel does in the notification.
    fake.setState(vcpu, Complete)
    return 0
  })
  const leave = (vcpu: number, request: Parameters<FakePage["submit"]>[1] = {}, kernelHandled = 0) => {
    fake.submit(vcpu, request)
    fake.setWord(vcpu, Slot.SLOT_KERNEL_HANDLED_OFFSET, kernelHandled)
    fake.setState(vcpu, Processing)
  }
  const stores = () => fake.accesses.filter(({ access }) => access === "store").map(({ offset }) => offset % 256)
  return { fake, leave, notified, page, stores }
}

describe("DefaultClientPage", () => {
  it("serves what the kernel left to it, writes the value and notifies; the states are the kernel's", () => {
    const { fake, leave, notified, page, stores } = make()
    leave(1, { address: 0x3f8, size: 2 })
    assert.strictEqual(page.look(1), "Request")
    assert.deepStrictEqual<unknown>(page.request, { _tag: "PortRead", vcpu: 1, port: 0x3f8, size: 2 })
    const epoch = page.claim(1)
    assert.strictEqual(page.look(1), "NotPending")
    assert.strictEqual(page.complete(1, epoch, 0x1234), "Completed")
    assert.deepStrictEqual(stores(), [Slot.REQUEST_VALUE_OFFSET])
    assert.deepStrictEqual(notified, [1])
    assert.deepStrictEqual(fake.answer(1), [0x1234, 0])
    assert.strictEqual(page.look(1), "NotPending")
  })

  it("a request without a client is answered in the same way", () => {
    const { leave, notified, page, stores } = make()
    leave(0, { size: 4 })
    assert.strictEqual(page.look(0), "Request")
    page.answer(0, undefined)
    assert.deepStrictEqual(stores(), [Slot.REQUEST_VALUE_OFFSET])
    assert.deepStrictEqual(notified, [0])
  })

  it("the claim is dropped before the kernel is notified: the slot may hold the next request by then", () => {
    const fake = new FakePage()
    const heldWhenNotified: Array<boolean> = []
    const page: DefaultClientPage = new DefaultClientPage(fake, 1, () => {
      heldWhenNotified.push(page.isHeld(0))
      return 0
    })
    fake.submit(0, {})
    fake.setState(0, Processing)
    page.look(0)
    const epoch = page.claim(0)
    assert.strictEqual(page.complete(0, epoch, 1), "Completed")
    assert.deepStrictEqual(heldWhenNotified, [false])
    assert.strictEqual(page.complete(0, epoch, 1), "Stale")
    assert.strictEqual(heldWhenNotified.length, 1)
  })

  it("even a polled request is notified of: the kernel knows who polls", () => {
    const { leave, notified, page } = make()
    leave(0, { polling: true })
    page.look(0)
    page.complete(0, page.claim(0), 0)
    assert.deepStrictEqual(notified, [0])
  })

  it("leaves alone what is the hypervisor's, the kernel's, or one of its clients'", () => {
    const { fake, leave, page } = make()
    for (const state of [Free, Pending, Complete]) {
      fake.setState(0, state)
      assert.strictEqual(page.look(0), "NotPending")
      assert.isFalse(page.isOffered(0, state))
      assert.isTrue(page.isElsewhere(state))
    }
    leave(0, {}, 1)
    assert.strictEqual(page.look(0), "NotPending")
    fake.setState(0, 9)
    assert.strictEqual(page.look(0), "Foreign")
  })

  it("a request that the kernel completed itself is not completed again", () => {
    const { fake, leave, notified, page, stores } = make()
    leave(0)
    page.look(0)
    const epoch = page.claim(0)
    fake.setState(0, Free)
    assert.strictEqual(page.look(0), "Foreign")
    assert.strictEqual(page.complete(0, epoch, 1), "Foreign")
    assert.deepStrictEqual(notified, [])
    assert.deepStrictEqual(stores(), [])
  })

  it("shows a request that waits for us, and none of the kernel's", () => {
    const { fake, leave, page } = make()
    leave(0, { address: 0x60 })
    assert.deepStrictEqual<unknown>(page.peek(0).request, { _tag: "PortRead", vcpu: 0, port: 0x60, size: 1 })
    fake.setState(0, Pending)
    assert.isUndefined(page.peek(0).request)
  })

  it("the profile's role decides which half of the protocol is played", () => {
    const of = (role: Parameters<typeof pageFor>[0]) => pageFor(role, new FakePage(), 1, () => 0)
    assert.instanceOf(of("DefaultClient"), DefaultClientPage)
    for (const role of ["ServiceModule", undefined] as const) {
      assert.instanceOf(of(role), RequestPage)
      assert.notInstanceOf(of(role), DefaultClientPage)
    }
  })
})
