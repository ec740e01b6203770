package com.google.ai.edge.litert

import android.content.res.AssetManager
import edgeopt.fake.FakeDevice
import edgeopt.fake.FakeTensor
import java.nio.ByteBuffer

class LiteRtException(message: String) : Exception(message)

enum class Accelerator(val value: Int) { NONE(0), CPU(1), GPU(2), NPU(3) }

class Environment private constructor() : AutoCloseable {
    override fun close() {}
}

class TensorBuffer internal constructor() : AutoCloseable {
    internal var fake: FakeTensor? = null

    // A buffer knows how many values it holds and not which sizes: those come from the model.
    private fun write(dtype: String, count: Int, bytes: Int, fill: ByteBuffer.() -> Unit) {
        fake = FakeTensor.of(dtype, listOf(count.toLong()), bytes, fill)
    }

    private fun read(dtype: String): ByteBuffer {
        val tensor = checkNotNull(fake)
        if (tensor.dtype != dtype) throw LiteRtException("the buffer holds ${tensor.dtype}, not $dtype")
        return tensor.buffer
    }

    fun writeFloat(data: FloatArray) = write("float32", data.size, 4) { data.forEach { putFloat(it) } }

    fun writeInt(data: IntArray) = write("int32", data.size, 4) { data.forEach { putInt(it) } }

    fun writeLong(data: LongArray) = write("int64", data.size, 8) { data.forEach { putLong(it) } }

    fun writeInt8(data: ByteArray) = write("int8", data.size, 1) { put(data) }

    fun writeBoolean(data: BooleanArray) = write("bool", data.size, 1) { data.forEach { put(if (it) 1 else 0) } }

    fun readFloat(): FloatArray = read("float32").let { b -> FloatArray(b.remaining() / 4) { b.getFloat() } }

    fun readInt(): IntArray = read("int32").let { b -> IntArray(b.remaining() / 4) { b.getInt() } }

    fun readLong(): LongArray = read("int64").let { b -> LongArray(b.remaining() / 8) { b.getLong() } }

    fun readInt8(): ByteArray = read("int8").let { b -> ByteArray(b.remaining()) { b.get() } }

    fun readBoolean(): BooleanArray = read("bool").let { b -> BooleanArray(b.remaining()) { b.get() != 0.toByte() } }

    override fun close() {}
}

class CompiledModel private constructor() : AutoCloseable {
    data class CpuOptions(
        val numThreads: Int? = null,
        val xnnPackFlags: Int? = null,
        val xnnPackWeightCachePath: String? = null,
    )

    class Options(internal vararg val accelerators: Accelerator) {
        var cpuOptions: CpuOptions? = null
    }

    fun createInputBuffer(inputName: String, signature: String? = null): TensorBuffer {
        requireSignature(signature)
        if (inputName !in FakeDevice.inputNames) throw LiteRtException("no input $inputName")
        return TensorBuffer()
    }

    fun createOutputBuffer(outputName: String, signature: String? = null): TensorBuffer {
        requireSignature(signature)
        if (outputName !in FakeDevice.outputNames) throw LiteRtException("no output $outputName")
        return TensorBuffer()
    }

    fun run(inputs: Map<String, TensorBuffer>, outputs: Map<String, TensorBuffer>, signature: String? = null) {
        requireSignature(signature)
        val flat = FakeDevice.inputNames.map { checkNotNull(inputs.getValue(it).fake) }
        val answer = try {
            FakeDevice.answerFlat(flat)
        } catch (error: IllegalStateException) {
            throw LiteRtException(error.message!!)
        }
        FakeDevice.outputNames.forEachIndexed { index, name -> outputs.getValue(name).fake = answer[index] }
    }

    override fun close() {
        FakeDevice.openModels--
    }

    // The native code checks it with ABSL_CHECK, which ends the process.
    private fun requireSignature(signature: String?) {
        if (signature != "serving_default") throw Error("ABSL_CHECK: signature $signature")
    }

    companion object {
        @JvmStatic
        @JvmOverloads
        fun create(
            assetManager: AssetManager,
            assetName: String,
            options: Options = Options(Accelerator.CPU),
            optionalEnv: Environment? = null,
        ): CompiledModel {
            check(optionalEnv == null)
            val head = assetManager.open(assetName).use { it.readBytes() }.decodeToString()
            if (!head.startsWith("not a model")) throw LiteRtException("not a model file")
            if (Accelerator.GPU in options.accelerators && !FakeDevice.gpuWorks) throw LiteRtException("no OpenCL")
            FakeDevice.loaded(options.cpuOptions?.numThreads)
            return CompiledModel()
        }
    }
}
