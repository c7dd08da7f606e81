/**
 * A context whose fibers live in guest time: what they sleep is the guest's, what they yield to is its scheduler.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Scheduler from "effect/Scheduler"
import type { GuestTime } from "../Hypervisor.ts"

export const inGuestTime = <R>(context: Context.Context<R>, { clock, scheduler }: GuestTime): Context.Context<R> =>
  context.pipe(Context.add(Clock.Clock, clock), Context.add(Scheduler.Scheduler, scheduler))
