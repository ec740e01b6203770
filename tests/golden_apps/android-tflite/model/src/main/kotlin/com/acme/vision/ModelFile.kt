// Written by edgeopt app; edgeopt app --update writes it anew.
package com.acme.vision

import android.content.Context
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.io.OutputStream
import java.security.MessageDigest

/** The model can't be loaded or run; the message says what to do. */
public class ModelException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** The model file: checked, and where the runtime can read it. */
internal object ModelFile {
    private const val BUFFER_BYTES = 1 shl 16

    /** Hashes the asset. Throws [ModelException] when it isn't the file that was exported. */
    fun checkAsset(context: Context) {
        requireHash(copy(openAsset(context), null), "asset ${ModelSpec.ASSET}")
    }

    /**
     * The model as a file of its own, which a runtime can map; unpacked once, hashed every time. What an older
     * version of the app unpacked is removed.
     *
     * Throws [ModelException] when the asset isn't the file that was exported or there is no room for it.
     */
    @Synchronized
    fun unpacked(context: Context): File {
        val folder = File(context.noBackupFilesDir, "edgeopt/com.acme.vision")
        val file = File(folder, "${ModelSpec.SHA256}.tflite")
        if (file.isFile && copy(file.inputStream(), null) == ModelSpec.SHA256) {
            return file
        }
        val part = File(folder, "${file.name}.part")
        try {
            folder.mkdirs()
            requireHash(part.outputStream().use { copy(openAsset(context), it) }, "asset ${ModelSpec.ASSET}")
            if (!part.renameTo(file)) {
                throw ModelException("${file.path} can't be written")
            }
            folder.listFiles()?.filter { it != file }?.forEach(File::delete)
        } catch (error: IOException) {
            throw ModelException("the model can't be unpacked to ${folder.path}: ${error.message}", error)
        } finally {
            part.delete()
        }
        return file
    }

    private fun openAsset(context: Context): InputStream = try {
        context.assets.open(ModelSpec.ASSET)
    } catch (error: IOException) {
        throw ModelException("the app has no asset ${ModelSpec.ASSET}: add the model module to it", error)
    }

    private fun requireHash(found: String, what: String) {
        if (found != ModelSpec.SHA256) {
            throw ModelException("$what is not the file that was exported: its SHA-256 is $found")
        }
    }

    private fun copy(input: InputStream, output: OutputStream?): String {
        val digest = MessageDigest.getInstance("SHA-256")
        val buffer = ByteArray(BUFFER_BYTES)
        input.use {
            var count = it.read(buffer)
            while (count >= 0) {
                digest.update(buffer, 0, count)
                output?.write(buffer, 0, count)
                count = it.read(buffer)
            }
        }
        return digest.digest().joinToString("") { byte -> "%02x".format(byte) }
    }
}
