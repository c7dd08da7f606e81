import { assert, describe, it } from "@effect/vitest"
import { parseAccounts, parseFeatures, parseOptions } from "../../../src/cli/doctor/parse.ts"

describe("what the system writes about a machine", () => {
  it("a kernel's configuration", () => {
    assert.deepStrictEqual(
      [...parseOptions("# comment\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"y\"\nCONFIG_E=7\n")],
      [["CONFIG_A", "y"], ["CONFIG_B", "m"]]
    )
  })

  it("the first processor's features", () => {
    const features = parseFeatures("vendor_id\t: X\nflags\t\t: fpu  vmx\nvmx flags\t: ept\n\nflags\t\t: svm\n")
    assert.deepStrictEqual(features, new Set(["fpu", "vmx"]))
    assert.isUndefined(parseFeatures("Features : fp asimd\n"))
    assert.isUndefined(parseFeatures(""))
  })

  it("names of users and groups, and who is in which group", () => {
    const accounts = parseAccounts("root:x:0:\nkvm:x:107:alice,bob\ndisk:x:6:bob\nempty:x:7:\nbroken\n\n")
    assert.deepStrictEqual([0, 107, 6, 8].map(accounts.nameOf), ["root", "kvm", "disk", "8"])
    assert.deepStrictEqual(accounts.listing("bob"), ["kvm", "disk"])
    assert.deepStrictEqual(accounts.listing("alice"), ["kvm"])
    assert.deepStrictEqual(accounts.listing("ali"), [])
  })
})
