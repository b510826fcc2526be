from callback_contract import CallbackContract
from mine import LossLog


class TestLossLog(CallbackContract):
    contract = (2, 0)
    capabilities = {"state"}

    def make(self, output_dir):
        return LossLog()
