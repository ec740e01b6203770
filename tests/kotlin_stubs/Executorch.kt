package org.pytorch.executorch

import edgeopt.fake.FakeDevice
import edgeopt.fake.FakeTensor
import java.io.Closeable
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.DoubleBuffer
import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.nio.LongBuffer
import java.nio.ShortBuffer

open class Module private constructor() : Closeable {
    open fun forward(vararg inputs: EValue): Array<EValue> =
        FakeDevice.answer(inputs.map { it.toTensor().fake }).map { EValue.from(Tensor(it)) }.toTypedArray()

    open fun loadMethod(methodName: String) {
        require(methodName == "forward")
    }

    open fun destroy() {
        FakeDevice.openModels--
    }

    override fun close(): Unit = destroy()

    companion object {
        const val LOAD_MODE_FILE = 0
        const val LOAD_MODE_MMAP = 1

        @JvmStatic
        @JvmOverloads
        fun load(modelPath: String?, loadMode: Int = LOAD_MODE_FILE, numThreads: Int = 0): Module {
            check(File(modelPath!!).readText().startsWith("not a model")) { "not a model file" }
            check(loadMode == LOAD_MODE_MMAP)
            FakeDevice.loaded(numThreads)
            return Module()
        }
    }
}

class EValue private constructor(private val tensor: Tensor) {
    fun toTensor(): Tensor = tensor

    companion object {
        @JvmStatic
        fun from(tensor: Tensor): EValue = EValue(tensor)
    }
}

class Tensor internal constructor(internal val fake: FakeTensor) {
    fun shape(): LongArray = fake.shape.toLongArray()

    private fun <T> typed(dtype: String, value: () -> T): T {
        check(fake.dtype == dtype) { "Tensor of type ${fake.dtype} cannot return data as $dtype." }
        return value()
    }

    private val count: Int
        get() = fake.shape.fold(1L) { a, b -> a * b }.toInt()

    val dataAsFloatArray: FloatArray
        get() = typed("float32") { FloatArray(count).also { fake.buffer.asFloatBuffer().get(it) } }
    val dataAsDoubleArray: DoubleArray
        get() = typed("float64") { DoubleArray(count).also { fake.buffer.asDoubleBuffer().get(it) } }
    val dataAsShortArray: ShortArray
        get() = typed("float16") { ShortArray(count).also { fake.buffer.asShortBuffer().get(it) } }
    val dataAsLongArray: LongArray
        get() = typed("int64") { LongArray(count).also { fake.buffer.asLongBuffer().get(it) } }
    val dataAsIntArray: IntArray
        get() = typed("int32") { IntArray(count).also { fake.buffer.asIntBuffer().get(it) } }
    val dataAsByteArray: ByteArray
        get() = typed("int8") { fake.bytes.copyOf() }
    val dataAsUnsignedByteArray: ByteArray
        get() = typed("uint8") { fake.bytes.copyOf() }

    companion object {
        private fun make(dtype: String, shape: LongArray, bytes: Int, fill: ByteBuffer.() -> Unit) =
            Tensor(FakeTensor.of(dtype, shape.toList(), bytes, fill))

        private fun direct(isDirect: Boolean, order: ByteOrder) =
            require(isDirect && order == ByteOrder.nativeOrder()) { "Data buffer must be direct, in native order" }

        @JvmStatic
        fun allocateHalfBuffer(numElements: Int): ShortBuffer =
            ByteBuffer.allocateDirect(numElements * 2).order(ByteOrder.nativeOrder()).asShortBuffer()

        @JvmStatic
        fun fromBlobUnsigned(data: ByteArray, shape: LongArray): Tensor = make("uint8", shape, 1) { put(data) }

        @JvmStatic
        fun fromBlob(data: ByteArray, shape: LongArray): Tensor = make("int8", shape, 1) { put(data) }

        @JvmStatic
        fun fromBlob(data: IntArray, shape: LongArray): Tensor = make("int32", shape, 4) { data.forEach { putInt(it) } }

        @JvmStatic
        fun fromBlob(data: FloatArray, shape: LongArray): Tensor =
            make("float32", shape, 4) { data.forEach { putFloat(it) } }

        @JvmStatic
        fun fromBlob(data: LongArray, shape: LongArray): Tensor =
            make("int64", shape, 8) { data.forEach { putLong(it) } }

        @JvmStatic
        fun fromBlob(data: DoubleArray, shape: LongArray): Tensor =
            make("float64", shape, 8) { data.forEach { putDouble(it) } }

        @JvmStatic
        fun fromBlobUnsigned(data: ByteBuffer, shape: LongArray): Tensor {
            direct(data.isDirect, data.order())
            return make("uint8", shape, 1) { for (i in 0 until data.capacity()) put(data.get(i)) }
        }

        @JvmStatic
        fun fromBlob(data: ByteBuffer, shape: LongArray): Tensor {
            direct(data.isDirect, data.order())
            return make("int8", shape, 1) { for (i in 0 until data.capacity()) put(data.get(i)) }
        }

        @JvmStatic
        fun fromBlob(data: IntBuffer, shape: LongArray): Tensor {
            direct(data.isDirect, data.order())
            return make("int32", shape, 4) { for (i in 0 until data.capacity()) putInt(data.get(i)) }
        }

        @JvmStatic
        fun fromBlob(data: FloatBuffer, shape: LongArray): Tensor {
            direct(data.isDirect, data.order())
            return make("float32", shape, 4) { for (i in 0 until data.capacity()) putFloat(data.get(i)) }
        }

        @JvmStatic
        fun fromBlob(data: ShortBuffer, shape: LongArray): Tensor {
            direct(data.isDirect, data.order())
            return make("float16", shape, 2) { for (i in 0 until data.capacity()) putShort(data.get(i)) }
        }

        @JvmStatic
        fun fromBlob(data: LongBuffer, shape: LongArray): Tensor {
            direct(data.isDirect, data.order())
            return make("int64", shape, 8) { for (i in 0 until data.capacity()) putLong(data.get(i)) }
        }

        @JvmStatic
        fun fromBlob(data: DoubleBuffer, shape: LongArray): Tensor {
            direct(data.isDirect, data.order())
            return make("float64", shape, 8) { for (i in 0 until data.capacity()) putDouble(data.get(i)) }
        }
    }
}
