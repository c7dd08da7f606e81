import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { bucketOf, Histogram, lowerBound, upperBound } from "../../src/cli/Histogram.ts"

const value = Schema.Union([
  Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100 })),
  Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_000_000 })),
  Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }))
])

describe("Histogram", () => {
  it.prop("a value lies in its bucket, which is narrow", [value], ([sample]) => {
    const bucket = bucketOf(sample)
    assert.isAtMost(lowerBound(bucket), sample)
    assert.isAtLeast(upperBound(bucket), sample)
    assert.isAtMost(upperBound(bucket) - lowerBound(bucket), sample / 16)
  })

  it("buckets follow one another without gaps, over all powers of two", () => {
    for (let bucket = 0; bucket < 700; bucket++) {
      assert.strictEqual(bucketOf(lowerBound(bucket)), bucket)
      assert.strictEqual(bucketOf(upperBound(bucket)), bucket)
      assert.strictEqual(lowerBound(bucket + 1), upperBound(bucket) + 1)
    }
    for (let power = 1; power <= 52; power++) {
      assert.strictEqual(bucketOf(2 ** power), bucketOf(2 ** power - 1) + 1)
    }
  })

  it.prop(
    "quantiles are at most one part in 16 above the exact ones",
    [value, Arbitrary.array(Arbitrary.schema(value), { maxLength: 200 })],
    ([first, others]) => {
      const samples = [first, ...others]
      const histogram = new Histogram()
      for (const sample of samples) histogram.record(sample)
      const ascending = samples.toSorted((a, b) => a - b)
      for (const q of [0, 0.5, 0.9, 0.99, 1]) {
        const exact = ascending[Math.max(1, Math.ceil(q * samples.length)) - 1]!
        const found = histogram.quantile(q)
        assert.isAtLeast(found, exact)
        assert.isAtMost(found, exact + exact / 16)
      }
      assert.strictEqual(histogram.quantile(1), ascending.at(-1))
      assert.strictEqual(histogram.max, ascending.at(-1))
      assert.strictEqual(histogram.count, samples.length)
    }
  )

  it("takes what no duration is", () => {
    const histogram = new Histogram()
    assert.strictEqual(histogram.quantile(0.5), 0)
    for (const odd of [-1, -0.5, 0.5, Infinity]) histogram.record(odd)
    assert.strictEqual(histogram.count, 4)
    assert.strictEqual(histogram.quantile(0.5), 0)
  })
})
