// Written by edgeopt app; edgeopt app --update writes it anew.
package com.acme.vision

import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.log10

/** One golden tensor: its sizes and its values as a primitive array. */
internal class GoldenTensor(val shape: List<Int>, val data: Any)

/** Inputs of one sample and what the source model computed from them. */
internal class GoldenSample(val inputs: List<GoldenTensor>, val outputs: List<GoldenTensor>)

/** How far an output may be: at least [least] dB of signal to noise, or that share of equal values. */
internal class Tolerance(val kind: String, val least: Double)

/** The bundle's golden data; golden.txt says what each file holds. */
internal class Golden(open: (String) -> InputStream) {
    val samples: List<GoldenSample>
    val tolerances: Map<Int, Tolerance>

    init {
        val rows = open("golden.txt").bufferedReader().use { it.readLines() }
            .filterNot { it.startsWith("#") }
            .map { it.split(' ') }
        val (bounds, tensors) = rows.partition { it[0] == "tolerance" }
        tolerances = bounds.associate { it[1].toInt() to Tolerance(it[2], it[3].toDouble()) }
        samples = tensors.groupBy { it[0] }.values.map { sample ->
            val (inputs, outputs) = sample.partition { it[1] == "input" }
            GoldenSample(inputs.map { tensor(it, open) }, outputs.map { tensor(it, open) })
        }
    }

    private fun tensor(row: List<String>, open: (String) -> InputStream): GoldenTensor {
        val shape = if (row[4] == "-") emptyList() else row[4].split('x').map(String::toInt)
        val bytes = open(row[5]).use { it.readBytes() }
        return GoldenTensor(shape, values(row[3], ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)))
    }

    private fun values(type: String, bytes: ByteBuffer): Any = when (type) {
        "float32" -> FloatArray(bytes.remaining() / Float.SIZE_BYTES) { bytes.getFloat() }
        "float64" -> DoubleArray(bytes.remaining() / Double.SIZE_BYTES) { bytes.getDouble() }
        "float16" -> ShortArray(bytes.remaining() / Short.SIZE_BYTES) { bytes.getShort() }
        "int64" -> LongArray(bytes.remaining() / Long.SIZE_BYTES) { bytes.getLong() }
        "int32" -> IntArray(bytes.remaining() / Int.SIZE_BYTES) { bytes.getInt() }
        "int8", "uint8" -> ByteArray(bytes.remaining()) { bytes.get() }
        "bool" -> BooleanArray(bytes.remaining()) { bytes.get() != 0.toByte() }
        else -> throw IllegalArgumentException("golden data of type $type")
    }
}

/** Agreement of one output over all samples. */
internal class Agreement {
    private var signal = 0.0
    private var noise = 0.0
    private var equal = 0L
    private var count = 0L
    private var oddDiffer = false

    fun add(wanted: Any, found: Any) {
        val (a, b) = doubles(wanted) to doubles(found)
        require(a.size == b.size) { "the output has ${b.size} values instead of ${a.size}" }
        for (i in a.indices) {
            count++
            if (a[i] == b[i]) equal++
            if (a[i].isFinite() && b[i].isFinite()) {
                signal += a[i] * a[i]
                noise += (a[i] - b[i]) * (a[i] - b[i])
            } else if (a[i].isFinite() != b[i].isFinite()) {
                oddDiffer = true
            }
        }
    }

    /** What was reached, in the tolerance's own measure; infinite for an exact match. */
    fun reached(tolerance: Tolerance): Double = when {
        tolerance.kind == "agreement" -> equal.toDouble() / maxOf(count, 1)
        oddDiffer -> Double.NEGATIVE_INFINITY
        noise == 0.0 -> Double.POSITIVE_INFINITY
        else -> 10 * log10(signal / noise)
    }

    private fun doubles(values: Any): DoubleArray = when (values) {
        is FloatArray -> DoubleArray(values.size) { values[it].toDouble() }
        is DoubleArray -> values
        is ShortArray -> DoubleArray(values.size) { half(values[it].toInt() and 0xffff) }
        is LongArray -> DoubleArray(values.size) { values[it].toDouble() }
        is IntArray -> DoubleArray(values.size) { values[it].toDouble() }
        is ByteArray -> DoubleArray(values.size) { values[it].toDouble() }
        is BooleanArray -> DoubleArray(values.size) { if (values[it]) 1.0 else 0.0 }
        else -> throw IllegalArgumentException("values of type ${values.javaClass.simpleName}")
    }

    // IEEE 754 half precision: 1 sign, 5 exponent, 10 fraction bits.
    private fun half(bits: Int): Double {
        val sign = if (bits and 0x8000 != 0) -1.0 else 1.0
        val exponent = bits shr 10 and 0x1f
        val fraction = (bits and 0x3ff) / 1024.0
        return sign * when (exponent) {
            0 -> fraction * Math.scalb(1.0, -14)
            0x1f -> if (fraction == 0.0) Double.POSITIVE_INFINITY else Double.NaN
            else -> (1 + fraction) * Math.scalb(1.0, exponent - 15)
        }
    }
}
