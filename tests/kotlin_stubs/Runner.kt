package edgeopt.fake

import java.io.File
import java.lang.reflect.InvocationTargetException
import kotlin.system.exitProcess
import org.junit.After
import org.junit.Before
import org.junit.Test

/**
 * Runs JUnit-style classes, one line a test. Each argument is a file with the lines: class, ASSET FOLDERS separated
 * by ':', folder for the app's files, the model file's input names and its output names separated by tabs.
 */
fun main(arguments: Array<String>) {
    var failed = 0
    for (argument in arguments) {
        val (name, assets, files, inputs, outputs) = File(argument).readLines()
        val type = Class.forName(name)
        for (test in type.methods.filter { it.isAnnotationPresent(Test::class.java) }.sortedBy { it.name }) {
            FakeDevice.assets = assets.split(':').map(::File)
            FakeDevice.files = File(files)
            FakeDevice.inputNames = inputs.split('\t')
            FakeDevice.outputNames = outputs.split('\t')
            FakeDevice.replaced.clear()
            FakeDevice.log.clear()
            FakeDevice.gpuWorks = true
            FakeDevice.openModels = 0
            FakeDevice.answersAnything = false
            FakeDevice.files.deleteRecursively()
            try {
                val instance = type.getDeclaredConstructor().newInstance()
                val before = type.methods.filter { it.isAnnotationPresent(Before::class.java) }
                val after = type.methods.filter { it.isAnnotationPresent(After::class.java) }
                (before + test + after).forEach { it.invoke(instance) }
                check(FakeDevice.openModels == 0) { "${FakeDevice.openModels} models were left open" }
                println("ok $name.${test.name}")
            } catch (error: Exception) {
                val cause = (error as? InvocationTargetException)?.targetException ?: error
                println("FAIL $name.${test.name}: $cause")
                failed++
            } catch (error: AssertionError) {
                println("FAIL $name.${test.name}: $error")
                failed++
            }
        }
    }
    exitProcess(if (failed == 0) 0 else 1)
}
