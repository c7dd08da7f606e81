import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { describeResult, Errno } from "../../src/domain/Errno.ts"

describe("Errno", () => {
  it("names the results that hypercalls give", () => {
    assert.strictEqual(describeResult(-1), "EPERM (-1)")
    assert.strictEqual(describeResult(-22), "EINVAL (-22)")
    assert.strictEqual(describeResult(-25), "ENOTTY (-25)")
    assert.strictEqual(describeResult(0), "0")
    assert.strictEqual(describeResult(-12345), "-12345")
  })

  it.prop("every result has its number in its name", [Schema.Int], ([result]) => {
    assert.include(describeResult(result), String(result))
  })

  it("has the numbers of errno-base.h", () => {
    assert.deepInclude(Errno, { EPERM: 1, EIO: 5, EAGAIN: 11, ENOMEM: 12, EFAULT: 14, EBUSY: 16, EINVAL: 22 })
  })
})
