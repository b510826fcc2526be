from callback_contract import CallbackContract
from mine import LossLog


class TestLossLog(CallbackContract):
    contract = (1, 0)
    capabilities = {"state"}
    expect = "55 run, 5 not claimed, 0 deviates"

    def make(self, output_dir):
        return LossLog()
