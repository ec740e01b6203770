// Written by edgeopt app; edgeopt app --update writes it anew.
package com.acme.vision

import android.content.Context
import android.util.Log
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException
import com.google.ai.edge.litert.TensorBuffer
import java.io.Closeable
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.nio.LongBuffer

/** The compiled model. Not safe for use by several threads at once: [TinyNet] takes care of that. */
internal class ModelRuntime private constructor(
    private val model: CompiledModel,
    val placement: Placement,
) : Closeable {
    private val inputs: Map<String, TensorBuffer> =
        ModelSpec.INPUTS.associate { it.fileName to model.createInputBuffer(it.fileName, SIGNATURE) }
    private val outputs: Map<String, TensorBuffer> =
        ModelSpec.OUTPUTS.associate { it.fileName to model.createOutputBuffer(it.fileName, SIGNATURE) }

    /**
     * Runs the model once.
     *
     * @param inputs one primitive array or buffer an input, in the order of [ModelSpec.INPUTS]; a buffer is copied,
     *   because LiteRT's Kotlin classes take arrays.
     * @param shapes the sizes of each input.
     * @return one primitive array an output.
     */
    fun run(inputs: List<Any>, shapes: List<LongArray>): List<Any> {
        check(inputs.size == ModelSpec.INPUTS.size && shapes.size == inputs.size)
        ModelSpec.INPUTS.forEachIndexed { index, spec ->
            write(this.inputs.getValue(spec.fileName), spec, inputs[index])
        }
        try {
            model.run(this.inputs, this.outputs, SIGNATURE)
            return ModelSpec.OUTPUTS.map { read(this.outputs.getValue(it.fileName), it) }
        } catch (error: LiteRtException) {
            throw ModelException("LiteRT can't run the model: ${error.message}", error)
        }
    }

    override fun close() {
        inputs.values.forEach(TensorBuffer::close)
        outputs.values.forEach(TensorBuffer::close)
        model.close()
    }

    private fun write(buffer: TensorBuffer, spec: TensorSpec, data: Any) = when (data) {
        is FloatArray -> buffer.writeFloat(data)
        is IntArray -> buffer.writeInt(data)
        is LongArray -> buffer.writeLong(data)
        is ByteArray -> buffer.writeInt8(data)
        is BooleanArray -> buffer.writeBoolean(data)
        is FloatBuffer -> buffer.writeFloat(FloatArray(data.capacity()) { data.get(it) })
        is IntBuffer -> buffer.writeInt(IntArray(data.capacity()) { data.get(it) })
        is LongBuffer -> buffer.writeLong(LongArray(data.capacity()) { data.get(it) })
        is ByteBuffer -> buffer.writeInt8(ByteArray(data.capacity()) { data.get(it) })
        else -> throw IllegalArgumentException("${spec.name} can't be a ${data.javaClass.simpleName}")
    }

    private fun read(buffer: TensorBuffer, spec: TensorSpec): Any = when (spec.type) {
        ElementType.FLOAT32 -> buffer.readFloat()
        ElementType.INT64 -> buffer.readLong()
        ElementType.INT32 -> buffer.readInt()
        ElementType.INT8 -> buffer.readInt8()
        ElementType.BOOL -> buffer.readBoolean()
        else -> throw ModelException("${spec.name}: LiteRT's classes have no ${spec.type}")
    }

    companion object {
        private const val TAG = "edgeopt"

        // What the converter calls a model's one signature. LiteRT's native code ends the app when none is given.
        private const val SIGNATURE = "serving_default"

        fun load(context: Context, options: TinyNet.Options): ModelRuntime {
            RuntimeVersion.require(BuildConfig.RUNTIME_VERSION, ModelSpec.RUNTIME_VERSION)
            ModelFile.checkAsset(context)
            if (options.delegate == Delegate.GPU) {
                try {
                    val model = CompiledModel.create(context.assets, ModelSpec.ASSET, gpu())
                    return opened(model, Placement("GPU", options.threads, null))
                } catch (error: LiteRtException) {
                    val reason = "the GPU can't run the model, so the CPU does: ${error.message}"
                    Log.w(TAG, reason)
                    return onCpu(context, options, reason)
                }
            }
            return onCpu(context, options, null)
        }

        private fun opened(model: CompiledModel, placement: Placement): ModelRuntime = try {
            ModelRuntime(model, placement)
        } catch (error: LiteRtException) {
            model.close()
            throw error
        }

        // The GPU alone: with the CPU beside it, what the GPU can't run would move there without a word.
        private fun gpu() = CompiledModel.Options(Accelerator.GPU)

        private fun onCpu(context: Context, options: TinyNet.Options, fallback: String?): ModelRuntime {
            val cpu = CompiledModel.Options(Accelerator.CPU)
            cpu.cpuOptions = CompiledModel.CpuOptions(options.threads, null, null)
            try {
                val model = CompiledModel.create(context.assets, ModelSpec.ASSET, cpu)
                return opened(model, Placement(ModelSpec.DELEGATES, options.threads, fallback))
            } catch (error: LiteRtException) {
                throw ModelException("LiteRT can't load the model: ${error.message}", error)
            }
        }
    }
}
