/**
 * Service VM memory in which the services' every access to an I/O request page is seen, before it is made: somebody else
 * may act there, and memory that was given back must not be touched.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { REQUEST_VALUE_OFFSET, SLOT_STATE_OFFSET } from "../../src/domain/abi/IoRequestSlot.ts"
import { SLOT_BYTES } from "../../src/domain/Limits.ts"
import { AddressSpace, type Backing, makeServiceMemory, sharedPage } from "../../src/services/AddressSpace.ts"
import { ServiceMemory, type ServicePage } from "../../src/services/ServiceMemory.ts"

/** Memory of this thread alone: a run takes a few pages, and shared ones cost more to make than the rest of it. */
const plainBacking = (bytes: number): Backing => {
  const buffer = new ArrayBuffer(bytes)
  const raw = new Uint8Array(buffer)
  const words = new Int32Array(buffer)
  return {
    bytes,
    read: (offset, into) => into.set(raw.subarray(offset, offset + into.length)),
    write: (offset, from) => raw.set(from, offset),
    page: (offset) => sharedPage(words, offset)
  }
}

const nameOf = (offset: number): string => {
  const within = offset % SLOT_BYTES
  const word = within === SLOT_STATE_OFFSET ? "state" : within === REQUEST_VALUE_OFFSET ? "value" : `word ${within / 4}`
  return `the ${word} of slot ${Math.floor(offset / SLOT_BYTES)}`
}

/** A page whose accesses are told of before they are made. */
export const watchPage = (page: ServicePage, before: (what: string) => void): ServicePage => ({
  load32: (offset) => {
    before(`loads ${nameOf(offset)}`)
    return page.load32(offset)
  },
  store32: (offset, value) => {
    before(`stores ${nameOf(offset)}`)
    page.store32(offset, value)
  },
  fetchRequest: (offset, words) => {
    before(`fetches the request of slot ${offset / SLOT_BYTES}`)
    page.fetchRequest(offset, words)
  },
  storeRequest: (offset, words) => page.storeRequest(offset, words)
})

/** What the hypervisor sees, and what the services get instead. */
export interface WatchedMemory {
  readonly hypervisor: ServiceMemory["Service"]
  readonly services: ServiceMemory["Service"]
}

export const make = (
  onAccess: (what: string) => void,
  onUseAfterRelease: (what: string) => void
): WatchedMemory => {
  const space = new AddressSpace()
  const hypervisor = makeServiceMemory(space, (bytes) => Result.succeed(plainBacking(bytes)))
  // Addresses are given again: which of two owners an access belongs to is told by when its page was asked for.
  let grants: ReadonlyArray<{ readonly address: number }> = []
  const watch = (address: number, page: ServicePage): ServicePage => {
    const grant = grants.find((each) => each.address === address)
    return watchPage(page, (what) => {
      if (grant === undefined || !grants.includes(grant)) onUseAfterRelease(what)
      onAccess(what)
    })
  }
  return {
    hypervisor,
    services: ServiceMemory.of({
      ...hypervisor,
      allocate: (request) =>
        Effect.acquireRelease(hypervisor.allocate(request), (region) =>
          Effect.sync(() => {
            grants = grants.filter((each) => each !== region)
          })).pipe(Effect.tap((region) =>
            Effect.sync(() => {
              grants = [...grants, region]
            })
          )),
      page: (address) => Result.map(hypervisor.page(address), (page) => watch(address, page))
    })
  }
}
