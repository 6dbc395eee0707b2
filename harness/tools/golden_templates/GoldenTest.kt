// Checks an app against a golden bundle. Written by `harness golden`.
// Instrumented test: copy the bundle's folder to src/androidTest/assets/golden, and call the app in `preprocess`.
// Needs com.google.ai.edge.litert:litert and androidx.test. dump.jsonl lies in the test's files folder afterwards:
// adb exec-out run-as PACKAGE cat files/dump.jsonl > dump.jsonl; harness app dump.jsonl --golden DIR
package golden

import android.graphics.BitmapFactory
import androidx.test.platform.app.InstrumentationRegistry
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.tensorflow.lite.Interpreter

class GoldenTest {
    private val instrumentation = InstrumentationRegistry.getInstrumentation()
    private val assets = instrumentation.context.assets
    private val golden = JSONObject(String(bytes("golden.json")))
    private val input = Info(golden.getJSONObject("input"))
    private val output = Info(golden.getJSONObject("output"))
    private val tolerance = golden.getDouble("tolerance").toFloat()

    /**
     * The app's own code: an image file as the model's input tensor, raw little-endian numbers. Replace this.
     * BitmapFactory does not apply EXIF orientation; if the app decodes with it, that is one of the mistakes to be seen.
     */
    private fun preprocess(image: ByteArray): ByteArray {
        BitmapFactory.decodeByteArray(image, 0, image.size)
        throw NotImplementedError("call the app here")
    }

    @Test
    fun isFedAsTheModelWasTrained() {
        val dump = File(instrumentation.targetContext.filesDir, "dump.jsonl").apply { delete() }
        val problems = mutableListOf<String>()
        Interpreter(direct(bytes(golden.getString("model")))).use { interpreter ->
            eachImage { image ->
                val fed = preprocess(bytes(image.getString("image")))
                val line = JSONObject()
                    .put("bundle", golden.getString("bundle"))
                    .put("image", image.getString("name"))
                    .put("input", JSONArray(input.real(fed).toList()))
                    .put("output", JSONArray(output.real(answer(interpreter, fed)).toList()))
                dump.appendText("$line\n")
                val expected = input.real(bytes(image.getString("input")))
                val off = largestDifference(expected, input.real(fed))
                if (off > golden.getDouble("input_tolerance")) problems += "${image.getString("name")}: off by $off"
            }
        }
        assertTrue(problems.joinToString("\n"), problems.isEmpty())
    }

    @Test
    fun interpreterAnswers() {
        Interpreter(direct(bytes(golden.getString("model")))).use { interpreter ->
            eachImage { image ->
                assertAnswer(image, output.real(answer(interpreter, bytes(image.getString("input")))))
            }
        }
    }

    @Test
    fun compiledModelAnswersOnTheCpu() = compiledModelAnswers(Accelerator.CPU)

    @Test
    fun compiledModelAnswersOnTheGpu() = compiledModelAnswers(Accelerator.GPU)

    private fun compiledModelAnswers(accelerator: Accelerator) {
        val file = "golden/" + golden.getString("model")
        CompiledModel.create(assets, file, CompiledModel.Options(accelerator)).use { model ->
            val inputs = model.createInputBuffers()
            val outputs = model.createOutputBuffers()
            eachImage { image ->
                val content = bytes(image.getString("input"))
                if (input.dtype == "float32") inputs[0].writeFloat(input.real(content)) else inputs[0].writeInt8(content)
                model.run(inputs, outputs)
                val float = output.dtype == "float32"
                assertAnswer(image, if (float) outputs[0].readFloat() else output.real(outputs[0].readInt8()))
            }
        }
    }

    /** The model's raw output. */
    private fun answer(interpreter: Interpreter, tensor: ByteArray): ByteArray {
        val result = ByteBuffer.allocateDirect(output.bytes).order(ByteOrder.nativeOrder())
        interpreter.run(direct(tensor), result)
        result.rewind()
        return ByteArray(output.bytes).also { result.get(it) }
    }

    private fun assertAnswer(image: JSONObject, answer: FloatArray) {
        val name = image.getString("name")
        val expected = output.real(bytes(image.getString("output")))
        assertEquals("$name: class", best(expected), best(answer))
        val off = largestDifference(expected, answer)
        assertTrue("$name: a probability is off by $off, $tolerance allowed", off <= tolerance)
    }

    private fun largestDifference(expected: FloatArray, actual: FloatArray): Float {
        assertEquals("number of values", expected.size, actual.size)
        return expected.indices.maxOf { abs(expected[it] - actual[it]) }
    }

    private fun best(values: FloatArray): Int = values.indices.maxByOrNull { values[it] } ?: -1

    private fun eachImage(check: (JSONObject) -> Unit) {
        val images = golden.getJSONArray("images")
        for (i in 0 until images.length()) check(images.getJSONObject(i))
    }

    private fun bytes(file: String): ByteArray = assets.open("golden/$file").use { it.readBytes() }

    private fun direct(content: ByteArray): ByteBuffer =
        ByteBuffer.allocateDirect(content.size).order(ByteOrder.nativeOrder()).put(content).apply { rewind() }

    private class Info(json: JSONObject) {
        val dtype: String = json.getString("dtype")
        val scale: Float = json.getDouble("scale").toFloat()
        val zeroPoint: Int = json.getInt("zero_point")
        private val shape = json.getJSONArray("shape")
        private val values: Int = (0 until shape.length()).fold(1) { product, i -> product * shape.getInt(i) }
        val bytes: Int = values * if (dtype == "float32") 4 else if (dtype == "int16") 2 else 1

        /** Real numbers of raw ones. */
        fun real(content: ByteArray): FloatArray {
            val buffer = ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN)
            return FloatArray(values) {
                when (dtype) {
                    "float32" -> buffer.float
                    "int16" -> (buffer.short - zeroPoint) * scale
                    "uint8" -> ((buffer.get().toInt() and 0xFF) - zeroPoint) * scale
                    else -> (buffer.get() - zeroPoint) * scale
                }
            }
        }
    }
}
