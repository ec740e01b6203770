// Written by edgeopt app; edgeopt app --update writes it anew.
package com.acme.vision

import android.content.Context
import java.io.Closeable
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.DoubleBuffer
import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.nio.LongBuffer
import java.nio.ShortBuffer
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/** The loaded program. Not safe for use by several threads at once: [TinyNet] takes care of that. */
internal class ModelRuntime private constructor(
    private val module: Module,
    val placement: Placement,
) : Closeable {
    /**
     * Runs the model once.
     *
     * @param inputs one primitive array or direct buffer an input, in the order of [ModelSpec.INPUTS].
     * @param shapes the sizes of each input.
     * @return one primitive array an output.
     */
    fun run(inputs: List<Any>, shapes: List<LongArray>): List<Any> {
        val arguments = ModelSpec.INPUTS.indices.map { index ->
            EValue.from(tensorOf(ModelSpec.INPUTS[index], inputs[index], shapes[index]))
        }
        val values = try {
            module.forward(*arguments.toTypedArray())
        } catch (error: RuntimeException) {
            throw ModelException("ExecuTorch can't run the model: ${error.message}", error)
        }
        if (values.size != ModelSpec.OUTPUTS.size) {
            throw ModelException("the model gave ${values.size} outputs instead of ${ModelSpec.OUTPUTS.size}")
        }
        return ModelSpec.OUTPUTS.mapIndexed { index, spec -> arrayOf(spec, values[index].toTensor()) }
    }

    override fun close() {
        module.destroy()
    }

    private fun tensorOf(spec: TensorSpec, data: Any, shape: LongArray): Tensor = when (data) {
        is FloatArray -> Tensor.fromBlob(data, shape)
        is DoubleArray -> Tensor.fromBlob(data, shape)
        is ShortArray -> Tensor.fromBlob(data.toDirect(), shape)
        is LongArray -> Tensor.fromBlob(data, shape)
        is IntArray -> Tensor.fromBlob(data, shape)
        is ByteArray -> if (spec.type == ElementType.UINT8) {
            Tensor.fromBlobUnsigned(data, shape)
        } else {
            Tensor.fromBlob(data, shape)
        }
        is Buffer -> tensorOfBuffer(spec, data, shape)
        else -> throw IllegalArgumentException("${spec.name} can't be a ${data.javaClass.simpleName}")
    }

    private fun tensorOfBuffer(spec: TensorSpec, data: Buffer, shape: LongArray): Tensor = when (data) {
        is FloatBuffer -> Tensor.fromBlob(data, shape)
        is DoubleBuffer -> Tensor.fromBlob(data, shape)
        is ShortBuffer -> Tensor.fromBlob(data, shape)
        is LongBuffer -> Tensor.fromBlob(data, shape)
        is IntBuffer -> Tensor.fromBlob(data, shape)
        is ByteBuffer -> if (spec.type == ElementType.UINT8) {
            Tensor.fromBlobUnsigned(data, shape)
        } else {
            Tensor.fromBlob(data, shape)
        }
        else -> throw IllegalArgumentException("${spec.name} can't be a ${data.javaClass.simpleName}")
    }

    private fun ShortArray.toDirect(): ShortBuffer {
        val buffer = Tensor.allocateHalfBuffer(size)
        buffer.put(this)
        buffer.rewind()
        return buffer
    }

    private fun arrayOf(spec: TensorSpec, tensor: Tensor): Any = when (spec.type) {
        ElementType.FLOAT32 -> tensor.dataAsFloatArray
        ElementType.FLOAT64 -> tensor.dataAsDoubleArray
        ElementType.FLOAT16 -> tensor.dataAsShortArray
        ElementType.INT64 -> tensor.dataAsLongArray
        ElementType.INT32 -> tensor.dataAsIntArray
        ElementType.INT8 -> tensor.dataAsByteArray
        ElementType.UINT8 -> tensor.dataAsUnsignedByteArray
        ElementType.BOOL -> throw ModelException("${spec.name}: ExecuTorch's classes have no bool")
    }

    companion object {
        fun load(context: Context, options: TinyNet.Options): ModelRuntime {
            RuntimeVersion.require(BuildConfig.RUNTIME_VERSION, ModelSpec.RUNTIME_VERSION)
            val file = ModelFile.unpacked(context)
            try {
                val module = Module.load(file.path, Module.LOAD_MODE_MMAP, options.threads)
                // Older versions answer with an error code, newer ones throw.
                val code: Any? = module.loadMethod("forward")
                if (code is Int && code != 0) {
                    throw ModelException("ExecuTorch can't load the model: error $code")
                }
                return ModelRuntime(module, Placement(ModelSpec.DELEGATES, options.threads, null))
            } catch (error: RuntimeException) {
                throw ModelException("ExecuTorch can't load the model: ${error.message}", error)
            }
        }
    }
}
